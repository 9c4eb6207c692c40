"""The session table: names, owners, time-to-live, slots."""

import sys

import numpy as np
import pytest

from service import sessions
from service.errors import (
    InvalidInputError,
    SessionClosedError,
    SessionExistsError,
    SessionExpiredError,
    SessionLimitError,
    SessionNotFoundError,
)
from service.rows import INITIAL_ROW
from service.sessions import SessionTable, micro
from service.tombstones import TOMBSTONE_S


def open_one(
    table: SessionTable,
    name: str = "a",
    owner: str = "me",
    ttl_s: float = 10.0,
    now: float = 0.0,
    model: int = 0,
) -> int:
    return table.open(owner, name, model, ttl_s, now)


def test_an_id_made_by_the_server_is_new_and_unguessable() -> None:
    table = SessionTable(100)
    ids = {table.id_of(open_one(table, "")) for _ in range(50)}
    assert len(ids) == 50
    assert min(len(bytes.fromhex(one)) for one in ids) >= 15


def test_an_id_made_by_the_server_takes_no_more_memory_than_80_bytes() -> None:
    table = SessionTable(1)
    assert sys.getsizeof(table.id_of(open_one(table, ""))) <= 80


def test_a_live_id_cannot_be_opened_again_and_a_dead_one_can() -> None:
    table = SessionTable(10)
    slot = open_one(table)
    with pytest.raises(SessionExistsError):
        open_one(table)
    table.remove(slot, SessionClosedError, 1.0)
    assert open_one(table, now=2.0) == table.find("me", "a", 2.0)


def test_an_id_that_lives_again_is_found_and_its_tombstone_forgotten() -> None:
    table = SessionTable(10)
    table.remove(open_one(table), SessionClosedError, 0.0)
    slot = open_one(table)
    assert table.find("me", "a", 0.0) == slot
    assert table.tombstones.find(("me", "a"), 0.0) is None


def test_owners_have_their_own_names_and_never_see_each_others() -> None:
    table = SessionTable(10)
    mine, yours = open_one(table, owner="me"), open_one(table, owner="you")
    assert mine != yours
    table.remove(mine, SessionClosedError, 1.0)
    assert table.find("you", "a", 1.0) == yours
    with pytest.raises(SessionClosedError):
        table.find("me", "a", 1.0)
    with pytest.raises(SessionNotFoundError):
        table.find("they", "a", 1.0)


def test_a_lost_session_says_how_when_and_after_which_step() -> None:
    table = SessionTable(10)
    slot = open_one(table)
    table.next_index[slot] = 7
    told = table.remove(slot, SessionExpiredError, 100.0)
    assert str(told) == "session 'a' expired 0 s ago, after 7 steps"
    with pytest.raises(SessionExpiredError, match=r"session 'a' expired 30 s ago, after 7 steps"):
        table.find("me", "a", 130.0)


def test_a_session_that_is_gone_for_an_hour_never_existed() -> None:
    table = SessionTable(10)
    table.remove(open_one(table), SessionClosedError, 0.0)
    with pytest.raises(SessionClosedError):
        table.find("me", "a", TOMBSTONE_S)
    with pytest.raises(SessionNotFoundError):
        table.find("me", "a", TOMBSTONE_S + 1)


def test_the_number_of_sessions_is_limited() -> None:
    table = SessionTable(2)
    open_one(table, "a")
    slot = open_one(table, "b")
    with pytest.raises(SessionLimitError, match="2 sessions"):
        open_one(table, "c")
    assert len(table) == 2
    table.remove(slot, SessionClosedError, 0.0)
    assert len(table) == 1
    open_one(table, "c")


def test_a_session_starts_with_nothing_of_whoever_had_its_slot() -> None:
    table = SessionTable(1)
    slot = open_one(table, "a", ttl_s=5.0, model=1)
    serial = table.serial[slot]
    table._hot[slot] = 99
    table.acknowledged[slot] = 99
    table.remove(slot, SessionClosedError, 0.0)
    assert table.serial[slot] == sessions.FREE
    assert open_one(table, "b", ttl_s=7.0, now=3.0) == slot
    assert table.serial[slot] != serial
    assert table.row[slot] == INITIAL_ROW
    hot = (
        table.next_index,
        table.tail,
        table.job,
        table.window_chunks,
        table.window_bytes,
        table.acknowledged,
    )
    assert [int(column[slot]) for column in hot] == [0] * 6
    assert (table.used_us[slot], table.ttl_us[slot], table.model[slot]) == (micro(3.0), micro(7.0), 0)
    assert table.id_of(slot) == "b"


def test_every_session_has_a_number_of_its_own() -> None:
    table = SessionTable(3)
    serials = set()
    for _ in range(20):
        slot = open_one(table)
        serials.add(int(table.serial[slot]))
        table.remove(slot, SessionClosedError, 0.0)
    assert len(serials) == 20
    assert sessions.FREE not in serials


def test_a_session_expires_after_its_own_time_without_a_step() -> None:
    table = SessionTable(10)
    short, long = open_one(table, "short", ttl_s=5), open_one(table, "long", ttl_s=50)
    assert overdue(table, 4.9) == []
    table.used_us[short] = micro(4.0)
    assert overdue(table, 8.9) == []
    assert overdue(table, 9.0) == [short]
    table.remove(short, SessionExpiredError, 9.0)
    assert overdue(table, 49.0) == []
    assert overdue(table, 50.0) == [long]


def test_a_session_with_something_queued_is_not_overdue() -> None:
    table = SessionTable(10)
    slot = open_one(table, ttl_s=5)
    table.job[slot] = 1
    assert overdue(table, 100.0) == []
    assert table.is_overdue(np.array([slot]), 100.0).tolist() == [False]
    table.job[slot] = 0
    assert overdue(table, 100.0) == [slot]


def test_all_sessions_are_looked_at_in_so_many_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SWEEP_SLOTS", 4)
    table = SessionTable(20)
    assert table.sweeps == 0
    slots = [open_one(table, f"s{k}", ttl_s=1) for k in range(10)]
    assert table.sweeps == 3
    for _ in range(2):
        assert [overdue(table, 5.0) for _ in range(3)] == [slots[:4], slots[4:8], slots[8:]]


def test_sessions_that_come_and_go_take_no_more_memory_than_those_that_live_at_once() -> None:
    table = SessionTable(10_000)
    for k in range(5000):
        table.remove(open_one(table, f"s{k}"), SessionClosedError, 0.0)
    assert table.used_slots == 1
    assert table._slots == {}
    assert table._ids == [""]


def overdue(table: SessionTable, now: float) -> list[int]:
    return table.overdue(now).tolist()


@pytest.mark.parametrize("bad", ["x" * 129, "x" * 10_000_000, "a\nb", "\x00"])
def test_an_id_that_is_too_long_or_not_printable_is_refused(bad: str) -> None:
    table = SessionTable(10)
    for call in (lambda: open_one(table, bad), lambda: table.find("me", bad, 0.0)):
        with pytest.raises(InvalidInputError, match="session id: expected"):
            call()
