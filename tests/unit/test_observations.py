"""What an observed model tells of a session is that session's own, of its last committed run."""

from dataclasses import replace

import numpy as np
import pytest

from carousel.contract import Observed
from service.backend import Result, Run
from service.errors import SessionClosedError
from service.swap import unload
from tests.fakes import Harness, SessionView

STATISTICS = ("layer0.forget.mean", "layer0.hidden.norm")


def watched(**settings: int) -> Harness:
    """The fake model, which tells the mean of each row's inputs in a run and how many they were."""
    h = Harness(**settings)
    observed = Observed(output="observed", statistics=STATISTICS)
    h.engine.served[0] = replace(
        h.model, contract=h.model.contract.model_copy(update={"format": 2, "observed": observed})
    )
    plain = h.backend.run

    def run(run: Run) -> Result:
        (x,) = run.inputs
        own = [x[row, :length] for row, length in enumerate(run.lengths)]
        seen = np.array([[steps.mean(), len(steps)] for steps in own], np.float32)
        return replace(plain(run), observed=seen)

    h.backend.run = run  # type: ignore[method-assign]
    return h


def step(h: Harness, session: SessionView, *inputs: float) -> None:
    h.send(session, session.next_index, list(inputs))
    h.settle()


def test_each_session_has_the_row_of_its_own_last_run() -> None:
    h = watched()
    one, other, idle = h.open(), h.open(), h.open()
    assert h.engine.observations.of(one.slot) == []

    h.offer_frame([(one, 0, [2, 4], 0), (other, 0, [7, 9], 0)])
    h.settle()
    assert len(h.backend.runs) == 1
    assert h.engine.observations.of(one.slot) == [3, 2]
    assert h.engine.observations.of(other.slot) == [8, 2]
    assert h.engine.observations.of(idle.slot) == []

    step(h, one, 9)
    assert h.engine.observations.of(one.slot) == [9, 1]
    assert h.engine.observations.of(other.slot) == [8, 2]


def test_who_gets_a_slot_after_another_sees_nothing_of_it() -> None:
    h = watched()
    first = h.open()
    step(h, first, 5)
    h.engine.end(first.slot, SessionClosedError)
    second = h.open()
    assert second.slot == first.slot
    assert h.engine.observations.of(second.slot) == []

    step(h, second, 6)
    assert h.engine.observations.of(second.slot) == [6, 1]


def test_a_run_that_ends_after_its_session_leaves_nothing_for_whoever_has_the_slot() -> None:
    h = watched()
    first = h.open()
    h.send(first, 0, [5])
    h.start_run()
    h.engine.end(first.slot, SessionClosedError)
    second = h.open()
    h.settle()
    assert second.slot == first.slot
    assert h.engine.observations.of(second.slot) == []


def test_a_chunk_of_many_runs_tells_of_the_last_one_once_it_is_committed() -> None:
    h = watched(run_steps=4)
    session = h.open()
    step(h, session, 3)
    h.send(session, 1, [1, 1, 1, 1, 8, 8, 8, 8])
    h.start_run()
    h.finish_run()
    assert len(h.backend.runs) == 2
    assert h.engine.observations.of(session.slot) == [3, 1]
    h.settle()
    assert h.engine.observations.of(session.slot) == [8, 4]


def test_a_run_that_is_not_applied_tells_nothing() -> None:
    h = watched()
    session = h.open()
    step(h, session, 3)
    h.backend.poison = {13.0}
    step(h, session, 13)
    assert session.next_index == 1
    assert h.engine.observations.of(session.slot) == [3, 1]


def test_a_session_that_stands_elsewhere_than_its_last_run_left_it_tells_nothing() -> None:
    h = watched()
    session = h.open()
    step(h, session, 3)
    h.table.next_index[session.slot] = 0  # put back to a snapshot
    assert h.engine.observations.of(session.slot) == []


def test_a_version_that_observes_nothing_takes_over_and_the_rows_go_with_the_one_before() -> None:
    h = watched()
    session, before = h.open(), h.engine.served[0]
    step(h, session, 3)
    h.swap(7)
    assert h.engine.observations.of(session.slot) == []
    assert unload(h.engine, before) is False
    h.table.model[session.slot] = before.number
    assert h.engine.observations.of(session.slot) == []


def test_a_model_without_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    h = Harness()
    session = h.open()
    monkeypatch.setattr(h.engine.observations, "take", pytest.fail)
    step(h, session, 3)
    assert session.next_index == 1
    assert h.engine.observations.of(session.slot) == []
