"""The file of a drained server: what is in it comes back whole, and what is wrong with it is said."""

import errno
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest

from service import drain_file, leaving
from service.drain_file import NAME, DrainFileError
from service.errors import SessionClosedError
from service.fork import hidden_copies
from service.records import Arrays, read_record, write_record
from tests.fakes import Harness, SessionView, sequential
from tests.simulation.world import OWNER, at_once, finished

STEPS = [1, 1, 2, 3, 5]


def drained(folder: Path, sessions: int, **options: int) -> None:
    """Leave sessions s0, s1, ... that have made 1, 1, 2, 3, 5, 1, ... steps."""
    h = Harness(**options)
    for k in range(sessions):
        session = h.open(f"s{k}")
        h.send(session, 0, [float(k)] * STEPS[k % len(STEPS)])
        h.settle()
        h.now += 1
    h.engine.stop()
    assert finished(drain_file.save(folder, h.engine, {"calls": k}, at_once)) == sessions


def opened_again(folder: Path, **options: int) -> Harness:
    h = Harness(**options)
    assert finished(drain_file.load(folder, h.engine, at_once))
    return h


def check_all_there(h: Harness, sessions: int) -> None:
    for k in range(sessions):
        session = SessionView(h.engine, h.table.find(OWNER, f"s{k}", h.now))
        values = [float(k)] * STEPS[k % len(STEPS)]
        assert session.next_index == len(values)
        (state,) = h.backend.read(np.array([session.row]))
        assert state == sequential(values)[-1]
        again = h.send(session, 0, values)
        assert again.answer == sequential(values)


def refused(folder: Path) -> str:
    """Why the file is not read; it stays as it was."""
    (file,) = folder.iterdir()
    before = file.read_bytes()
    with pytest.raises(DrainFileError) as caught:
        opened_again(folder)
    assert file.read_bytes() == before
    line = str(caught.value)
    assert line.startswith(f"{file}: its sessions cannot be opened again (")
    assert line.endswith("); move the file away to start without them")
    assert "\n" not in line
    return line


def records_of(file: Path) -> list[Arrays]:
    with file.open("rb") as opened:
        opened.readline()
        records = []
        while opened.peek(1):
            records.append(read_record(opened))
    return records


def rewrite(file: Path, records: list[Arrays]) -> None:
    line = file.read_bytes().split(b"\n", 1)[0] + b"\n"
    with file.open("wb") as opened:
        opened.write(line)
        for arrays in records:
            write_record(opened, arrays)


def test_whatever_is_damaged_is_found_out(tmp_path: Path) -> None:
    drained(tmp_path, 5)
    file, rng = tmp_path / NAME, random.Random(4)
    whole = file.read_bytes()
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged if rng.random() < 0.7 else whole[: rng.randrange(len(whole))])
        refused(tmp_path)
    file.write_bytes(whole + b"\0")
    assert "expected its end, found more" in refused(tmp_path)
    file.write_bytes(whole)
    check_all_there(opened_again(tmp_path), 5)


@pytest.mark.parametrize(
    "content", [b"", b"nothing of ours", b"PK\x03\x04" + bytes(200), b"carousel sessions, format 99\n"]
)
def test_a_file_of_somebody_else_or_of_another_format_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    expected = (
        f"expected it to begin with {b'carousel sessions, format 2' + bytes([10])!r}, found {content[:28]!r}"
    )
    assert expected in refused(tmp_path)


def test_the_sessions_of_an_earlier_server_are_not_passed_over(tmp_path: Path) -> None:
    np.savez(tmp_path / "sessions.npz", document=np.zeros(3))
    assert "expected sessions.drain, of format 2" in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kept.member", 1 << 60),
        ("kept.member", -1),
        ("kept.lengths", 1 << 30),
        ("kept.lengths", 0),
        ("fresh", True),
        ("owner", 1 << 60),
    ],
)
def test_numbers_that_places_follow_from_are_not_believed(tmp_path: Path, name: str, value: int) -> None:
    drained(tmp_path, 5)
    document, sessions = records_of(tmp_path / NAME)
    sessions[name][1] = value
    rewrite(tmp_path / NAME, [document, sessions])
    refused(tmp_path)


def test_columns_and_records_that_are_missing_or_too_many_are_refused(tmp_path: Path) -> None:
    drained(tmp_path, 5)
    file = tmp_path / NAME
    document, sessions = records_of(file)
    for name, column in sessions.items():
        rewrite(file, [document, {key: array for key, array in sessions.items() if key != name}])
        refused(tmp_path)
        if name not in ("states", "owners"):
            rewrite(file, [document, sessions | {name: column[:1]}])
            refused(tmp_path)
    for records in ([document], [document, sessions, sessions], [sessions, document], [{}]):
        rewrite(file, records)
        refused(tmp_path)
    rewrite(file, [document, sessions])
    check_all_there(opened_again(tmp_path), 5)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("sessions", 10**18, "1000000000000000000 sessions, and the server takes"),
        ("sessions", 4, "expected 4 sessions of 'fake', found more"),
        ("sessions", 6, "it ends too early"),
        ("sessions", -1, "models.0.sessions"),
        ("planes", 10**18, "'sharers'"),
        ("kept_bytes", 10**18, "bytes of answers, and the server keeps"),
        ("pinned", "all", "models.0.pinned"),
    ],
)
def test_a_document_that_does_not_fit_the_rest_is_refused(
    tmp_path: Path, key: str, value: object, why: str
) -> None:
    drained(tmp_path, 5)
    document, sessions = records_of(tmp_path / NAME)
    said = json.loads(document["document"].tobytes())
    said["models"][0][key] = value
    rewrite(tmp_path / NAME, [{"document": np.frombuffer(json.dumps(said).encode(), np.uint8)}, sessions])
    assert why in refused(tmp_path)


def test_sessions_are_written_a_block_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "BLOCK_BYTES", 64)
    drained(tmp_path, 60)
    _, *blocks = records_of(tmp_path / NAME)
    assert len(blocks) > 10
    assert sum(len(block["next_index"]) for block in blocks) == 60
    check_all_there(opened_again(tmp_path), 60)


def test_a_server_that_takes_fewer_sessions_or_keeps_fewer_answers_says_so(tmp_path: Path) -> None:
    drained(tmp_path, 10)
    with pytest.raises(DrainFileError, match="10 sessions, and the server takes 9"):
        opened_again(tmp_path, sessions=9)
    with pytest.raises(DrainFileError, match="96 bytes of answers, and the server keeps 95"):
        opened_again(tmp_path, kept_bytes=95)
    check_all_there(opened_again(tmp_path, sessions=10, kept_bytes=96), 10)


def test_more_sessions_than_there_are_rows_come_back(tmp_path: Path) -> None:
    drained(tmp_path, 60, queue_chunks=4, resident=5)
    h = opened_again(tmp_path, queue_chunks=4, resident=2)
    assert h.model.rows.used == 2
    check_all_there(h, 60)


def test_a_file_that_cannot_be_written_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        drained(tmp_path, 3)
    assert not list(tmp_path.iterdir())


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    drained(tmp_path, 1)
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


def test_the_order_of_opening_and_who_asked_for_a_version_come_back(tmp_path: Path) -> None:
    h = Harness()
    for name in ("a", "b", "c"):
        h.open(name)
    h.engine.end(h.table.find(OWNER, "a", h.now), SessionClosedError)
    h.table.pinned[h.open("d").slot] = True  # in the place that `a` had
    h.engine.stop()
    finished(drain_file.save(tmp_path, h.engine, {}, at_once))
    after = Harness()
    finished(drain_file.load(tmp_path, after.engine, at_once))
    slots = after.table.of_model(0)
    order = slots[np.argsort(after.table.serial[slots])].tolist()
    assert [after.table.id_of(slot) for slot in order] == ["b", "c", "d"]
    assert after.table.pinned[order].tolist() == [False, False, True]
    assert after.open("e").serial > after.table.serial[order].max()


def test_sessions_of_several_owners_keep_apart(tmp_path: Path) -> None:
    h = Harness()
    owners = {"b": ["x", "y"], "a": ["x"], "c": ["ä", "z"]}
    for owner, ids in owners.items():
        for one in ids:
            h.table.open(owner, one, h.model.number, 1000.0, h.now)
    h.engine.stop()
    finished(drain_file.save(tmp_path, h.engine, {"calls": 1}, at_once))
    table = opened_again(tmp_path).table
    found = [(table.owner_of(slot), table.id_of(slot)) for slot in table.of_model(0).tolist()]
    assert found == [(owner, one) for owner, ids in owners.items() for one in ids]
    assert all(table.find(owner, one, h.now) is not None for owner, one in found)


def test_a_pin_to_a_version_that_is_not_there_any_more_is_let_go(tmp_path: Path) -> None:
    h = Harness()
    h.swap(7)
    for name, pinned in (("a", True), ("b", False)):
        h.table.pinned[h.open(name).slot] = pinned
    h.engine.stop()
    finished(drain_file.save(tmp_path, h.engine, {}, at_once))
    after = Harness()
    finished(drain_file.load(tmp_path, after.engine, at_once))
    assert not after.table.pinned[after.table.of_model(0)].any()
    assert len(after.table) == 2


async def test_what_the_server_made_for_itself_stays_behind(tmp_path: Path) -> None:
    h = Harness()
    source = h.open("a")
    h.send(source, 0, [1.0])
    h.settle()
    await h.made(hidden_copies(h.engine, OWNER, "a", 3))
    h.engine.stop()
    assert await drain_file.save(tmp_path, h.engine, {}, at_once) == 1
    after = Harness()
    await drain_file.load(tmp_path, after.engine, at_once)
    assert len(after.table) == after.model.rows.used == 1
