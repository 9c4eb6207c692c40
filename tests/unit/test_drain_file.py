"""The file of a drained server: what is in it comes back whole, and what is wrong with it is said."""

import errno
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest

from service import drain_file
from service.drain_file import NAME, DrainFileError
from service.errors import SessionClosedError
from service.fork import hidden_copies
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


def test_whatever_is_damaged_is_found_out_or_did_not_matter(tmp_path: Path) -> None:
    drained(tmp_path, 5)
    file, rng = tmp_path / NAME, random.Random(4)
    whole, refused = file.read_bytes(), list[str]()
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged if rng.random() < 0.9 else whole[: rng.randrange(len(whole))])
        try:
            h = opened_again(tmp_path)
        except DrainFileError as error:
            refused.append(str(error))
        else:
            check_all_there(h, 5)
    assert all(one.startswith(f"{file}: its sessions cannot be opened again") for one in refused)
    assert 150 < len(refused) < 300
    file.write_bytes(whole)
    check_all_there(opened_again(tmp_path), 5)


@pytest.mark.parametrize("content", [b"", b"nothing of ours", b"\x93NUMPY\x01\x00" + bytes(200)])
def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(DrainFileError, match="no archive"):
        opened_again(tmp_path)
    assert (tmp_path / NAME).read_bytes() == content


def test_a_file_of_another_format_is_not_guessed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(drain_file, "FORMAT", 99)
        drained(tmp_path, 1)
    with pytest.raises(DrainFileError, match="expected format 1, found 99"):
        opened_again(tmp_path)


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
    assert not (tmp_path / NAME).exists()


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


def test_a_file_of_a_server_that_knew_less_is_read(tmp_path: Path) -> None:
    drained(tmp_path, 5)
    with np.load(tmp_path / NAME) as archive:
        arrays = {name: archive[name] for name in archive}
    for name in ("serials", "pinned", "kept.versions"):
        del arrays[f"model0.{name}"]
    document = json.loads(arrays["document"].tobytes())
    for model in document["models"]:
        del model["number"], model["version"]
    arrays["document"] = np.frombuffer(json.dumps(document).encode(), np.uint8)
    np.savez(tmp_path / NAME, allow_pickle=False, **arrays)
    check_all_there(opened_again(tmp_path), 5)
