"""The session table: names, owners, time-to-live, tombstones."""

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
from service.sessions import SessionTable


def open_one(table: SessionTable, name: str = "a", owner: str = "me", ttl_s: float = 10.0, now: float = 0.0):
    return table.open(owner, name, "model/1", ttl_s, now)


def test_an_id_made_by_the_server_is_new_and_unguessable() -> None:
    table = SessionTable(100)
    ids = {open_one(table, "").id for _ in range(50)}
    assert len(ids) == 50
    assert min(map(len, ids)) >= 20


def test_a_live_id_cannot_be_opened_again_and_a_dead_one_can() -> None:
    table = SessionTable(10)
    session = open_one(table)
    with pytest.raises(SessionExistsError):
        open_one(table)
    table.remove(session, SessionClosedError, 1.0)
    assert open_one(table, now=2.0) is table.get("me", "a", 2.0)


def test_owners_have_their_own_names_and_never_see_each_others() -> None:
    table = SessionTable(10)
    mine, yours = open_one(table, owner="me"), open_one(table, owner="you")
    assert mine is not yours
    table.remove(mine, SessionClosedError, 1.0)
    assert table.get("you", "a", 1.0) is yours
    with pytest.raises(SessionClosedError):
        table.get("me", "a", 1.0)
    with pytest.raises(SessionNotFoundError):
        table.get("they", "a", 1.0)


def test_a_lost_session_says_how_when_and_after_which_step() -> None:
    table = SessionTable(10)
    session = open_one(table)
    session.next_index = 7
    table.remove(session, SessionExpiredError, 100.0)
    with pytest.raises(SessionExpiredError, match=r"session 'a' expired 30 s ago, after 7 steps"):
        table.get("me", "a", 130.0)


def test_a_tombstone_stands_for_an_hour() -> None:
    table = SessionTable(10)
    table.remove(open_one(table), SessionClosedError, 0.0)
    with pytest.raises(SessionClosedError):
        table.get("me", "a", sessions.TOMBSTONE_S)
    with pytest.raises(SessionNotFoundError):
        table.get("me", "a", sessions.TOMBSTONE_S + 1)


def test_tombstones_are_bounded_and_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "TOMBSTONES", 3)
    table = SessionTable(10)
    for name in "abcd":
        table.remove(open_one(table, name), SessionClosedError, 0.0)
    with pytest.raises(SessionNotFoundError):
        table.get("me", "a", 0.0)
    with pytest.raises(SessionClosedError):
        table.get("me", "b", 0.0)


def test_the_number_of_sessions_is_limited() -> None:
    table = SessionTable(2)
    open_one(table, "a")
    session = open_one(table, "b")
    with pytest.raises(SessionLimitError, match="2 sessions"):
        open_one(table, "c")
    table.remove(session, SessionClosedError, 0.0)
    open_one(table, "c")


def test_a_session_expires_after_its_own_time_without_a_step() -> None:
    table = SessionTable(10)
    short, long = open_one(table, "short", ttl_s=5), open_one(table, "long", ttl_s=50)
    assert table.overdue(4.9, 100) == []
    short.last_used = 4.0
    assert table.overdue(8.9, 100) == []
    assert table.overdue(9.0, 100) == [short]
    table.remove(short, SessionExpiredError, 9.0)
    assert table.overdue(49.0, 100) == []
    assert table.overdue(50.0, 100) == [long]


def test_closed_sessions_leave_memory_before_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    table = SessionTable(10)
    for _ in range(5000):
        table.remove(open_one(table), SessionClosedError, 0.0)
    assert len(table._deadlines) < 2000


@pytest.mark.parametrize("bad", ["x" * 129, "x" * 10_000_000, "a\nb", "\x00"])
def test_an_id_that_is_too_long_or_not_printable_is_refused(bad: str) -> None:
    table = SessionTable(10)
    for call in (lambda: open_one(table, bad), lambda: table.get("me", bad, 0.0)):
        with pytest.raises(InvalidInputError, match="session id: expected"):
            call()
