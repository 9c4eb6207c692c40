"""Copies of sessions: all or none, of one committed state, and alone from then on."""

import asyncio

import numpy as np
import pytest

from service.beginning import Begun
from service.errors import (
    BackendFailedError,
    InvalidInputError,
    QueueFullError,
    ServiceError,
    SessionClosedError,
    SessionExistsError,
    SessionLimitError,
    SessionNotFoundError,
)
from service.fork import end_hidden, fork, hidden_copies
from service.rows import INITIAL_ROW
from service.sessions import HIDDEN
from tests.fakes import Harness, SessionView, sequential

ME = "anonymous"


async def copy(h: Harness, source: SessionView, *ids: str) -> Begun:
    return await h.made(fork(h.engine, ME, source.id, [(ME, one) for one in ids]))


def stepped(h: Harness, values: list[float], session_id: str = "") -> SessionView:
    session = h.open(session_id)
    h.send(session, 0, values)
    h.settle()
    return session


async def test_copies_go_on_from_the_same_state_and_each_alone() -> None:
    h = Harness()
    source = stepped(h, [1, 2, 3])
    copies = await copy(h, source, "a", "b")
    views = [source, *(SessionView(h.engine, slot) for slot in copies.slots.tolist())]
    assert [view.id for view in views[1:]] == ["a", "b"]
    assert len({view.row for view in views}) == h.model.rows.used == 3
    assert [view.next_index for view in views] == [copies.next_index] * 3 == [3] * 3
    asked = [h.send(view, 3, [x]) for view, x in zip(views, [4, 5, 6], strict=True)]
    h.settle()
    assert [one.answer for one in asked] == [sequential([1, 2, 3, x])[3:] for x in (4, 5, 6)]


async def test_a_copy_has_no_kept_answers_and_the_life_of_its_session() -> None:
    h = Harness()
    source = stepped(h, [1, 2])
    h.table.ttl_us[source.slot], h.table.pinned[source.slot] = 7_000_000, True
    h.now = 5.0
    (slot,) = (await copy(h, source, "a")).slots
    assert not SessionView(h.engine, slot).kept
    assert h.table.window_chunks[slot] == h.table.window_bytes[slot] == h.table.acknowledged[slot] == 0
    assert (h.table.ttl_us[slot], h.table.used_us[slot], h.table.pinned[slot]) == (7_000_000, 5_000_000, True)


async def test_copies_of_a_session_without_steps_share_the_initial_row() -> None:
    h = Harness()
    copies = await copy(h, h.open(), "a", "b")
    assert h.table.row[copies.slots].tolist() == [INITIAL_ROW] * 2
    assert h.model.rows.used == copies.next_index == 0


async def test_the_state_of_a_long_chunk_that_runs_is_not_copied() -> None:
    h = Harness(run_steps=2)
    source = stepped(h, [1])
    h.send(source, 1, [2, 3, 4, 5, 6])
    h.start_run()
    h.finish_run()
    copies = await copy(h, source, "a")
    assert (source.next_index, copies.next_index) == (6, 1)
    assert h.states(copies.slots) == sequential([1])


async def test_a_session_in_the_spill_file_is_copied() -> None:
    h = Harness(resident=1)
    first = stepped(h, [1, 2])
    stepped(h, [3])
    h.advance(1.0)
    stepped(h, [4])
    assert first.row < 0
    assert h.states((await copy(h, first, "a", "b")).slots) == [sequential([1, 2])[-1]] * 2


@pytest.mark.parametrize(
    ("ids", "error"),
    [
        (["a", "taken"], SessionExistsError),
        (["a", "a"], InvalidInputError),
        (["a", "x" * 129], InvalidInputError),
        (["a", "b", "c"], SessionLimitError),
    ],
)
async def test_nothing_is_copied_if_one_copy_cannot_be(ids: list[str], error: type[ServiceError]) -> None:
    h = Harness(sessions=4)
    source = stepped(h, [1])
    stepped(h, [1], "taken")
    with pytest.raises(error):
        await copy(h, source, *ids)
    assert (len(h.table), h.model.rows.used) == (2, 2)


async def test_copies_leave_the_rows_that_others_need_to_go_on() -> None:
    h = Harness(resident=2, queue_chunks=3)
    source = stepped(h, [1])
    most = h.model.rows.capacity - 1 - h.engine.limits.second_rows
    with pytest.raises(QueueFullError, match=f"{most} more states: 1 of at most {most}"):
        await copy(h, source, *[f"c{k}" for k in range(most)])
    assert h.model.rows.used == 1
    await copy(h, source, *[f"c{k}" for k in range(most - 1)])


async def test_an_id_that_is_taken_while_rows_are_copied_undoes_it_all() -> None:
    h = Harness()
    source = stepped(h, [1])
    making = asyncio.ensure_future(fork(h.engine, ME, source.id, [(ME, "a"), (ME, "b")]))
    await asyncio.sleep(0)
    h.start_run()
    h.open("b")
    h.settle()
    with pytest.raises(SessionExistsError):
        await making
    assert (len(h.table), h.model.rows.used) == (2, 1)


async def test_a_session_that_ends_while_it_is_copied_has_no_copies() -> None:
    h = Harness()
    source = stepped(h, [1])
    making = asyncio.ensure_future(fork(h.engine, ME, source.id, [(ME, "a")]))
    await asyncio.sleep(0)
    h.start_run()
    source.end(SessionClosedError)
    h.settle()
    with pytest.raises(SessionClosedError):
        await making
    assert len(h.table) == h.model.rows.used == 0


async def test_rows_that_cannot_be_written_are_given_back() -> None:
    h = Harness()
    source = stepped(h, [1])
    h.backend.fail_next = True
    with pytest.raises(BackendFailedError, match="nothing was changed"):
        await copy(h, source, "a")
    assert len(h.table) == h.model.rows.used == 1


async def test_a_copy_is_made_though_its_caller_leaves() -> None:
    h = Harness()
    source = stepped(h, [1])
    making = asyncio.ensure_future(fork(h.engine, ME, source.id, [(ME, "a")]))
    await asyncio.sleep(0)
    making.cancel()
    await asyncio.gather(making, return_exceptions=True)
    h.settle()
    assert h.states(np.array([h.table.find(ME, "a", h.now)])) == sequential([1])


async def test_nothing_is_applied_once_the_engine_has_stopped() -> None:
    h = Harness()
    source = stepped(h, [1])
    making = asyncio.ensure_future(fork(h.engine, ME, source.id, [(ME, "a")]))
    await asyncio.sleep(0)
    h.start_run()
    h.engine.stop()
    h.settle()
    assert len(h.table) == 1
    assert not making.done()
    making.cancel()


async def test_calls_that_wait_for_rows_are_bounded() -> None:
    h = Harness(queue_chunks=2)
    source = stepped(h, [1])
    making = [asyncio.ensure_future(fork(h.engine, ME, source.id, [(ME, f"{k}")])) for k in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError, match="2 calls wait"):
        await making[2]
    h.settle()
    assert len(await asyncio.gather(*making[:2])) == 2


async def test_nothing_is_remembered_of_hidden_copies() -> None:
    h = Harness()
    source = stepped(h, [1, 2])
    copies = await h.made(hidden_copies(h.engine, ME, source.id, 3))
    assert h.states(copies.slots) == sequential([1, 2])[1:] * 3
    assert h.table.count_of(ME) == 1
    ids = [h.table.id_of(slot) for slot in copies.slots.tolist()]
    h.engine.end(int(copies.slots[0]), SessionClosedError)
    end_hidden(h.engine, copies)
    assert len(h.table) == h.model.rows.used == 1
    assert h.metric("carousel_sessions_ended_total", reason="closed") == 0
    for session_id in ids:
        with pytest.raises(SessionNotFoundError):
            h.table.find(HIDDEN, session_id, h.now)


async def test_a_slot_that_somebody_else_has_by_now_is_not_ended_as_a_hidden_copy() -> None:
    h = Harness()
    copies = await h.made(hidden_copies(h.engine, ME, stepped(h, [1]).id, 1))
    end_hidden(h.engine, copies)
    other = h.open()
    assert other.slot == copies.slots[0]
    end_hidden(h.engine, copies)
    assert other.alive
