"""Which chunks run together. Laws, over random arrivals."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.scheduler import Scheduler
from service.session import Chunk, Session, Steps


def chunk(length: int, model: str = "m/1") -> Chunk:
    session = Session("me", "id", model, 1.0, 0.0)
    steps = Steps(0, length, 0, 0, (np.zeros(length, np.float32),))
    return Chunk(session, steps, 0, 0.0, [])


lengths = st.lists(
    st.tuples(st.integers(1, 300), st.sampled_from(["a/1", "b/1"]), st.booleans()), max_size=60
)


@given(lengths, st.integers(1, 9), st.integers(1, 70))
def test_every_step_of_every_chunk_runs_once_in_order_and_dropped_chunks_never(
    arrivals, batch, run_steps
) -> None:
    scheduler = Scheduler(batch, {"a/1": run_steps, "b/1": run_steps})
    chunks = [chunk(length, model) for length, model, _ in arrivals]
    for one, (_, _, dropped) in zip(chunks, arrivals, strict=True):
        scheduler.add(one)
        one.dropped = dropped
    while (made := scheduler.next_batch()) is not None:
        assert 1 <= len(made.slices) <= batch
        assert {part.chunk.session.model for part in made.slices} == {made.model}
        assert len({id(part.chunk) for part in made.slices}) == len(made.slices)
        assert made.steps <= run_steps
        assert 2 * made.padding < made.steps * len(made.slices)
        for part in made.slices:
            assert not part.chunk.dropped
            assert part.start == part.chunk.done
            part.chunk.done += part.steps
            if part.chunk.done < part.chunk.steps.length:
                scheduler.add(part.chunk)
    for one in chunks:
        assert one.done == (0 if one.dropped else one.steps.length)


def test_the_chunk_that_has_waited_longest_is_in_the_next_batch() -> None:
    scheduler = Scheduler(2, {"m/1": 64})
    waiting = [chunk(1), chunk(64), chunk(1), chunk(1), chunk(3)]
    for one in waiting:
        scheduler.add(one)
    order = []
    while (made := scheduler.next_batch()) is not None:
        order.append([waiting.index(part.chunk) for part in made.slices])
    assert order == [[0, 2], [1], [3], [4]]


def test_a_single_step_waits_for_at_most_one_run_of_a_long_chunk() -> None:
    scheduler = Scheduler(8, {"m/1": 64})
    long = chunk(1000)
    scheduler.add(long)
    running = scheduler.next_batch()
    single = chunk(1)
    scheduler.add(single)
    long.done += running.steps
    scheduler.add(long)
    assert scheduler.next_batch().slices[0].chunk is single
