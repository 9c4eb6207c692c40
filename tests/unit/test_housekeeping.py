"""What goes on beside the steps: sessions expire and acknowledged answers are forgotten, a few at a time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service import housekeeping, sessions
from service.engine import Engine
from service.errors import SessionClosedError, SessionExpiredError
from service.metrics import Metrics
from service.readiness import HANGS, Readiness
from service.repository import ServedModel
from service.rows import RowAllocator
from tests.fakes import FakeBackend, Harness, SessionView, contract

AT_ONCE = 4


@asynccontextmanager
async def going_on(duty: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(duty)
    await asyncio.sleep(0)  # until it waits for the first time
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def expiring(h: Harness, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Expiry that never pauses; the loop may turn to others after each few sessions."""
    monkeypatch.setattr(housekeeping, "EXPIRY_INTERVAL_S", 0)
    monkeypatch.setattr(housekeeping, "EXPIRED_AT_ONCE", AT_ONCE)
    return going_on(housekeeping.expire(h.engine))


def forgetting(h: Harness, monkeypatch: pytest.MonkeyPatch, at_once: int = AT_ONCE) -> Any:
    """Answers of sessions that are quiet are forgotten, without a pause but for that of their own."""
    monkeypatch.setattr(housekeeping, "FORGOTTEN_AT_ONCE", at_once)
    monkeypatch.setattr(housekeeping, "QUIET_S", 0.0)
    return going_on(housekeeping.forget_answers(h.engine))


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came about")


def alive(all_of_them: list[SessionView]) -> list[int]:
    return [k for k, session in enumerate(all_of_them) if session.alive]


async def test_overdue_sessions_expire_and_others_live_on(monkeypatch: pytest.MonkeyPatch) -> None:
    h = Harness()
    short = [h.open(ttl_s=5) for _ in range(10)]
    long = h.open(ttl_s=50)
    async with expiring(h, monkeypatch):
        h.now = 4.9
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(alive(short)) == 10
        h.now = 5.0
        await until(lambda: not alive(short))
    assert long.alive
    assert h.metric("carousel_sessions_ended_total", reason="expired") == 10
    with pytest.raises(SessionExpiredError, match="after 0 steps"):
        h.table.find("anonymous", short[0].id, h.now)


async def test_the_loop_turns_to_others_after_a_few_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    h = Harness()
    overdue = [h.open(ttl_s=5) for _ in range(10)]
    seen = set()
    async with expiring(h, monkeypatch):
        h.now = 5.0
        await until(lambda: seen.add(len(alive(overdue))) or not alive(overdue))
    assert seen == {10, 6, 2, 0}


async def test_a_session_that_steps_while_others_expire_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    h = Harness()
    overdue = [h.open(ttl_s=5) for _ in range(10)]
    async with expiring(h, monkeypatch):
        h.now = 5.0
        await until(lambda: len(alive(overdue)) == 10 - AT_ONCE)
        queued, stepped = overdue[-1], overdue[-2]
        h.send(stepped, 0, [1])
        h.settle()
        caller = h.send(queued, 0, [1])
        await until(lambda: len(alive(overdue)) == 2)
        for _ in range(20):
            await asyncio.sleep(0)
        h.settle()
    assert alive(overdue) == [8, 9]
    assert caller.answer == [1]


async def test_whoever_gets_the_slot_of_an_overdue_session_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    h = Harness(sessions=10)
    overdue = [h.open(ttl_s=5) for _ in range(10)]
    async with expiring(h, monkeypatch):
        h.now = 5.0
        await until(lambda: len(alive(overdue)) == 10 - AT_ONCE)
        overdue[-1].end(SessionClosedError)
        overdue[-2].end(SessionClosedError)
        new = h.open()
        assert new.slot == overdue[-2].slot
        await until(lambda: not alive(overdue))
    assert new.alive
    assert len(h.table) == 1


async def test_every_session_is_looked_at_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SWEEP_SLOTS", 3)
    h = Harness()
    overdue = [h.open(ttl_s=5) for _ in range(10)]
    async with expiring(h, monkeypatch):
        h.now = 5.0
        await until(lambda: not alive(overdue))


# -- acknowledged answers -----------------------------------------------------------------------------------------


def step(h: Harness, session: SessionView) -> None:
    """One step that acknowledges all before it."""
    h.send(session, session.tail, [1], acknowledged=session.next_index)
    h.settle()


async def test_what_quiet_sessions_have_acknowledged_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    h = Harness()
    quiet = [h.open() for _ in range(10)]
    for session in quiet:
        for _ in range(3):
            step(h, session)
    assert h.engine.kept.total_bytes > 10 * 4
    async with forgetting(h, monkeypatch):
        h.now = 5.0
        await until(lambda: h.engine.kept.total_bytes == 10 * 4)
    assert [[chunk.first for chunk in session.kept] for session in quiet] == [[2]] * 10
    assert h.table.window_chunks[:10].tolist() == [1] * 10
    assert h.table.window_bytes[:10].tolist() == [4] * 10


async def test_whoever_gets_the_slot_of_a_quiet_session_keeps_what_is_his(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    h = Harness()
    other = ServedModel("other", "1", contract(), FakeBackend(400, 1), RowAllocator(400), 1)
    h.engine = Engine(
        [h.model, other],
        h.engine.limits,
        lambda job, done: h.jobs.append((job, done)),
        h.metrics,
        lambda: h.now,
        h.soon.append,
        lambda delay, callback: h.timers.append((h.now + delay, callback)),
    )
    h.table = h.engine.table
    quiet = [h.open() for _ in range(3)]
    for session in quiet:
        step(h, session)
        step(h, session)
    looked_at = []
    forget = h.engine.rules.forget

    def first_time(model: int, slots: Any) -> None:
        """While the first session is looked at, a session of the other model gets the slot of the last."""
        forget(model, slots)
        looked_at.append(slots.tolist())
        if len(looked_at) == 1:
            quiet[2].end(SessionClosedError)
            new = SessionView(h.engine, h.table.open("anonymous", "", 1, 10.0, h.now))
            assert new.slot == quiet[2].slot
            step(h, new)
            step(h, new)

    monkeypatch.setattr(h.engine.rules, "forget", first_time)
    async with forgetting(h, monkeypatch, at_once=1):
        h.now = 5.0
        await until(lambda: [quiet[2].slot] in looked_at)
    for model in (0, 1):
        of_model = h.table.of_model(model).tolist()
        held = sum(len(h.engine.kept.of(slot, 0)) for slot in of_model)
        assert h.engine.kept._arenas[model].rows.used == held


# -- runs that hang -----------------------------------------------------------------------------------------------


async def test_a_run_that_hangs_is_told_to_whoever_restarts_unhealthy_services_and_so_is_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(housekeeping, "WATCH_INTERVAL_S", 0)
    h, readiness = Harness(), Readiness()
    await readiness.report(None)
    metrics = Metrics()
    housekeeping.add_gauges(metrics, h.engine, readiness)
    async with going_on(housekeeping.watch_runs(h.engine, readiness, 60.0)):
        h.send(h.open(), 0, [1])
        h.start_run()
        h.now = 59.0
        for _ in range(20):
            await asyncio.sleep(0)
        assert readiness.why_not is None
        assert metrics.registry.get_sample_value("carousel_run_age_seconds") == 59.0
        h.now = 60.0
        await until(lambda: readiness.why_not == HANGS)
        assert metrics.registry.get_sample_value("carousel_ready") == 0
        h.settle()
        await until(lambda: readiness.why_not is None)
