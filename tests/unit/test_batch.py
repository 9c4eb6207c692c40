"""A batch as the arrays of one run."""

import numpy as np

from service.batch import Batch
from service.cohort import Cohort
from tests.cohorts import cohort, table_of


def started(slots: list[int], length: int, rows: list[int], done: int = 0) -> Cohort:
    one = cohort(slots, length)
    one.started, one.rows, one.done = True, np.array(rows), done
    return one


def batch(*parts: tuple[Cohort, int]) -> Batch:
    cohorts, steps = zip(*parts, strict=True)
    return Batch(0, cohorts, steps, sum(map(len, cohorts)), max(steps))


def test_a_first_run_reads_the_current_rows_and_later_ones_what_the_run_before_wrote() -> None:
    table = table_of(4)
    table.row[:] = [11, 12, 13, 14]
    first = batch((started([3, 1], 5, [21, 22]), 2)).run(table)
    assert (first.read_rows.tolist(), first.write_rows.tolist()) == ([14, 12], [21, 22])
    later = batch((started([3, 1], 5, [21, 22], done=2), 2)).run(table)
    assert (later.read_rows.tolist(), later.write_rows.tolist()) == ([21, 22], [21, 22])
    both = batch((started([3], 5, [21], done=2), 2), (started([0, 2], 2, [23, 24]), 2)).run(table)
    assert (both.read_rows.tolist(), both.write_rows.tolist()) == ([21, 11, 13], [21, 23, 24])


def test_one_cohort_gives_its_inputs_as_they_are_and_the_next_steps_of_a_long_one() -> None:
    table = table_of(2)
    one = started([0, 1], 5, [2, 3], done=2)
    (x,) = one.inputs
    part = batch((one, 2)).run(table)
    np.testing.assert_array_equal(part.inputs[0], x[:, 2:4])
    assert part.lengths.tolist() == [2, 2]
    one.done = 0
    whole = batch((one, 5)).run(table)
    assert whole.inputs[0] is x
    assert whole.lengths.tolist() == [5, 5]


def test_several_cohorts_are_padded_with_zeros_to_the_longest() -> None:
    table = table_of(3)
    long, short = started([0], 4, [3], done=1), started([1, 2], 2, [4, 5])
    made = batch((long, 3), (short, 2))
    run = made.run(table)
    assert made.padding == 2
    assert run.lengths.tolist() == [3, 2, 2]
    assert run.lengths.dtype == np.int32
    assert run.inputs[0].tolist() == [[1, 2, 3], [0, 1, 0], [100, 101, 0]]
    even = batch((started([0], 2, [3]), 2), (short, 2))
    assert even.padding == 0
    assert even.run(table).inputs[0].tolist() == [[0, 1], [0, 1], [100, 101]]
