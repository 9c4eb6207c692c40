"""Who owns which row: laws, over random takings and givings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rows import INITIAL_ROW, RowAllocator

CAPACITY = 12
moves = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=40)
"""Take so many rows, or give so many of those that are owned back."""


@given(moves, st.sampled_from([0, 1]), st.randoms(use_true_random=False))
def test_a_row_in_use_has_one_owner_and_what_is_given_back_can_be_taken_again(events, first, random) -> None:
    rows = RowAllocator(CAPACITY, first=first)
    owned: list[int] = []
    for take, count in events:
        if take and count <= CAPACITY - first - len(owned):
            taken = rows.take(count).tolist()
            assert len(taken) == count
            owned += taken
        elif not take:
            random.shuffle(owned)
            given_back, owned = owned[:count], owned[count:]
            rows.give(np.array(given_back, np.int64))
        assert len(set(owned)) == len(owned) == rows.used
        assert all(first <= row < CAPACITY for row in owned)
        assert rows.free == CAPACITY - first - len(owned)


def test_all_rows_but_the_initial_one_can_be_taken_and_no_more() -> None:
    rows = RowAllocator(4)
    with pytest.raises(IndexError, match="4 of 4 rows are not free"):
        rows.take(4)
    assert sorted(rows.take(3).tolist()) == [1, 2, 3]
    with pytest.raises(IndexError, match="bug in admission"):
        rows.take(1)
    assert rows.used == 3


def test_rows_that_are_not_free_leave_everything_as_it_was() -> None:
    rows = RowAllocator(5)
    taken = rows.take(3)
    rows.give(taken[:1])
    with pytest.raises(IndexError):
        rows.take(3)
    assert rows.used == 2
    assert len(rows.take(2)) == 2


def test_the_initial_row_belongs_to_everybody_and_is_passed_over() -> None:
    rows = RowAllocator(4)
    taken = rows.take(2)
    rows.give(np.array([INITIAL_ROW, taken[0], INITIAL_ROW]))
    assert rows.used == 1
    rows.give(np.array([INITIAL_ROW]))
    assert INITIAL_ROW not in rows.take(2)


def test_where_there_is_no_initial_row_row_0_is_one_like_any_other() -> None:
    rows = RowAllocator(2, first=0)
    assert rows.take(2).tolist() == [0, 1]
    rows.give(np.array([0]))
    assert rows.take(1).tolist() == [0]


def test_the_rows_given_back_last_are_given_first() -> None:
    rows = RowAllocator(10)
    taken = rows.take(6)
    rows.give(taken[:2])
    rows.give(taken[4:5])
    assert rows.take(1).tolist() == taken[4:5].tolist()
    assert sorted(rows.take(2).tolist()) == sorted(taken[:2].tolist())


def test_rows_that_were_handed_out_are_no_view_of_what_is_handed_out_next() -> None:
    rows = RowAllocator(10)
    rows.give(rows.take(4))
    mine = rows.take(2)
    before = mine.copy()
    rows.give(rows.take(2))
    rows.give(np.array([9]))
    np.testing.assert_array_equal(mine, before)
