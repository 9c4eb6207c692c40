"""Which chunks run together. Laws, over random arrivals."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batch import Batch
from service.cohort import Cohort
from service.pace import Pace
from service.scheduler import Scheduler, half_octave
from tests.cohorts import cohort


def pace_of(run_steps: int) -> Pace:
    """Two models whose runs have at most so many steps."""
    pace = Pace()
    for model in (0, 1):
        pace.add_model(model, run_steps)
    return pace


arrivals = st.lists(
    st.tuples(
        st.integers(1, 300),
        st.sampled_from([0, 1]),
        st.integers(1, 4),
        st.sets(st.integers(0, 3)),
    ),
    max_size=60,
)
"""Length, model, members and those that are dropped in the meantime."""


@given(arrivals, st.integers(4, 9), st.integers(1, 70))
def test_every_step_of_every_chunk_runs_once_in_order_and_dropped_chunks_never(came, most, run_steps) -> None:
    scheduler = Scheduler(most, pace_of(run_steps))
    cohorts = [cohort(range(members), length, model=model) for length, model, members, _ in came]
    waiting: list[Cohort] = []
    for one, (_, _, members, dropped) in zip(cohorts, came, strict=True):
        scheduler.add(one)
        for member in dropped & set(range(members)):
            one.drop(member)
        if not dropped >= set(range(members)):
            waiting.append(one)
    while (batch := scheduler.next_batch()) is not None:
        check(batch, most, run_steps)
        assert waiting[0] in batch.cohorts
        for one, steps in zip(batch.cohorts, batch.steps, strict=True):
            one.done += steps
            waiting.remove(one)
            if one.done < one.length:
                scheduler.add(one)
                waiting.append(one)
    assert scheduler.empty
    for one, (length, _, members, dropped) in zip(cohorts, came, strict=True):
        assert one.done == (length if len(one) else 0)
        assert len(one) == members - len(dropped & set(range(members)))


def check(batch: Batch, most: int, run_steps: int) -> None:
    assert 1 <= batch.size == sum(map(len, batch.cohorts)) <= most
    assert all(len(one) for one in batch.cohorts)
    assert {one.model for one in batch.cohorts} == {batch.model}
    assert len(set(map(id, batch.cohorts))) == len(batch.cohorts)
    assert batch.longest == max(batch.steps) <= run_steps
    for one, steps in zip(batch.cohorts, batch.steps, strict=True):
        left = one.length - one.done
        runs = math.ceil(left / run_steps)
        assert steps == math.ceil(left / runs)
    used = sum(len(one) * n for one, n in zip(batch.cohorts, batch.steps, strict=True))
    assert batch.padding == batch.longest * batch.size - used
    assert 3 * batch.padding < batch.longest * batch.size


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_lengths_share_a_run_only_if_each_is_more_than_two_thirds_of_the_other(one: int, other: int) -> None:
    if half_octave(one) == half_octave(other):
        assert 3 * min(one, other) > 2 * max(one, other)
    else:
        assert min(one, other) < max(one, other)


def test_there_are_two_groups_of_lengths_an_octave() -> None:
    groups = [half_octave(length) for length in range(1, 4097)]
    assert groups == sorted(groups)
    assert len(set(groups)) <= 2 * math.log2(4096) + 1
    assert [half_octave(5), half_octave(7), half_octave(9), half_octave(13)] == [
        half_octave(6),
        half_octave(8),
        half_octave(12),
        half_octave(16),
    ]


def run(scheduler: Scheduler, waiting: list[Cohort]) -> list[list[int]]:
    """Everything that is ready, batch after batch, as positions in `waiting`."""
    order = []
    while (made := scheduler.next_batch()) is not None:
        order.append([waiting.index(one) for one in made.cohorts])
    return order


def test_the_chunk_that_has_waited_longest_is_in_the_next_batch() -> None:
    scheduler = Scheduler(2, pace_of(64))
    waiting = [cohort([k], length) for k, length in enumerate((1, 64, 1, 1, 3))]
    for one in waiting:
        scheduler.add(one)
    assert run(scheduler, waiting) == [[0, 2], [1], [3], [4]]


def test_a_cohort_is_never_cut_and_waits_if_it_does_not_fit() -> None:
    scheduler = Scheduler(4, pace_of(64))
    waiting = [cohort(range(size)) for size in (3, 2, 1, 4)]
    for one in waiting:
        scheduler.add(one)
    assert run(scheduler, waiting) == [[0], [1, 2], [3]]


def test_models_never_share_a_run() -> None:
    scheduler = Scheduler(4, pace_of(64))
    waiting = [cohort([0], model=model) for model in (0, 1, 0, 1)]
    for one in waiting:
        scheduler.add(one)
    assert run(scheduler, waiting) == [[0, 2], [1, 3]]


def test_a_single_step_waits_for_at_most_one_run_of_a_long_chunk() -> None:
    scheduler = Scheduler(8, pace_of(64))
    long = cohort([0], 1000)
    scheduler.add(long)
    running = scheduler.next_batch()
    assert running is not None
    single = cohort([1])
    scheduler.add(single)
    long.done += running.longest
    scheduler.add(long)
    following = scheduler.next_batch()
    assert following is not None
    assert following.cohorts == [single]


@pytest.mark.parametrize("dropped", [False, True])
def test_it_is_empty_when_everything_was_taken(dropped: bool) -> None:
    scheduler = Scheduler(8, pace_of(64))
    assert scheduler.empty
    assert scheduler.next_batch() is None
    one = cohort([0])
    scheduler.add(one)
    assert not scheduler.empty
    if dropped:
        one.drop(0)
    assert (scheduler.next_batch() is None) == dropped
    assert scheduler.empty
