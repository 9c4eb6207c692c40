"""A session put back to a snapshot begins a new life, or nothing happens."""

import asyncio

import numpy as np
import pytest

from carousel.contract import Contract
from service.errors import (
    BackendFailedError,
    IndexUnexpectedError,
    ModelDiffersError,
    QueueFullError,
    SessionClosedError,
    SessionExistsError,
    SessionNotFoundError,
)
from service.restore import open_from, restore
from service.snapshot import Snapshot
from tests.fakes import Harness, SessionView, sequential

ME = "anonymous"
SNAPSHOT = Snapshot(5, np.array([77.0], np.float32))


def unseal(_: Contract) -> Snapshot:
    return SNAPSHOT


async def restored(h: Harness, session_id: str = "a") -> SessionView:
    (slot,) = (await h.made(restore(h.engine, (ME, session_id), unseal))).slots
    return SessionView(h.engine, slot)


def stepped(h: Harness) -> SessionView:
    session = h.open("a", ttl_s=7.0)
    h.send(session, 0, [1, 2])
    h.settle()
    return session


async def test_a_restored_session_goes_on_from_the_snapshot_and_keeps_nothing_of_its_old_life() -> None:
    h = Harness()
    old = stepped(h)
    h.table.pinned[old.slot] = True
    new = await restored(h)
    assert not old.alive
    assert (new.id, new.next_index, new.tail, new.kept) == ("a", 5, 5, [])
    assert (h.table.ttl_us[new.slot], h.table.pinned[new.slot]) == (7_000_000, True)
    assert (len(h.table), h.model.rows.used, h.engine.kept.total_bytes) == (1, 1, 0)
    assert isinstance(h.send(new, 0, [1, 2]).error, IndexUnexpectedError)
    answered = h.send(new, 5, [1])
    h.settle()
    assert answered.answer == sequential([1], 77.0)


async def test_chunks_of_the_old_life_are_refused_whether_they_wait_or_run() -> None:
    h = Harness(run_steps=2)
    old = stepped(h)
    running = h.send(old, 2, [3, 4, 5])
    h.start_run()
    queued = h.send(old, 5, [6])
    new = await restored(h)
    late = h.send(old, 5, [6])
    for caller in (running, queued, late):
        assert isinstance(caller.error, SessionClosedError)
    assert (new.next_index, h.states(np.array([new.slot]))) == (5, [77.0])
    assert h.engine.queue.chunks == h.engine.queue.promised_bytes == 0
    assert h.model.rows.used == 1


async def test_a_session_in_the_spill_file_is_put_back() -> None:
    h = Harness(resident=1)
    old = stepped(h)
    for _ in range(2):
        h.advance(1.0)
        h.send(h.open(), 0, [1])
        h.settle()
    assert old.row < 0
    new = await restored(h)
    assert h.states(np.array([new.slot])) == [77.0]
    assert h.spill is not None
    assert h.model.rows.used + h.spill.places.used == 3


async def test_a_restore_that_fails_leaves_the_session_as_it_was() -> None:
    h = Harness()
    old = stepped(h)
    h.backend.fail_next = True
    with pytest.raises(BackendFailedError):
        await restored(h)

    def differs(_: Contract) -> Snapshot:
        raise ModelDiffersError("another model")

    with pytest.raises(ModelDiffersError):
        await h.made(restore(h.engine, (ME, "a"), differs))
    with pytest.raises(SessionNotFoundError):
        await restored(h, "b")
    assert old.alive
    assert (h.model.rows.used, len(h.table)) == (1, 1)
    assert h.send(old, 0, [1, 2]).answer == sequential([1, 2])


async def test_a_restore_that_finds_no_row_leaves_the_session_as_it_was() -> None:
    h = Harness(queue_chunks=2)
    old = stepped(h)
    h.model.rows.take(h.model.rows.free - 2)
    with pytest.raises(QueueFullError):
        await restored(h)
    assert old.alive
    assert h.states(np.array([old.slot])) == sequential([1, 2])[1:]


async def test_a_quota_that_was_lowered_meanwhile_takes_no_session() -> None:
    h = Harness()
    stepped(h)
    h.table.quota_of = lambda _: 0
    assert (await restored(h)).alive


async def test_a_session_that_ended_and_began_again_while_it_was_restored_is_left_alone() -> None:
    h = Harness()
    old = stepped(h)
    restoring = asyncio.ensure_future(restore(h.engine, (ME, "a"), unseal))
    await asyncio.sleep(0)
    h.start_run()
    old.end(SessionClosedError)
    new = h.open("a")
    h.settle()
    with pytest.raises(SessionClosedError, match="a new one has its id"):
        await restoring
    assert new.alive
    assert h.model.rows.used == 0


async def test_a_session_opened_from_a_snapshot_has_its_state_and_index() -> None:
    h = Harness()
    opening = open_from(h.engine, (ME, "a"), 9_000_000, SNAPSHOT, lambda: h.model)
    (slot,) = (await h.made(opening)).slots
    new = SessionView(h.engine, slot)
    assert (new.id, new.next_index, new.tail, h.table.ttl_us[slot]) == ("a", 5, 5, 9_000_000)
    assert h.states(np.array([slot])) == [77.0]
    with pytest.raises(SessionExistsError):
        await h.made(open_from(h.engine, (ME, "a"), 9_000_000, SNAPSHOT, lambda: h.model))
    assert h.model.rows.used == 1
