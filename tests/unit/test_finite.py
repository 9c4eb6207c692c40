"""Finite numbers are told from others, also where the fast way overflows, and without a warning."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.finite import all_finite

LARGEST = float(np.finfo(np.float32).max)
FLOATS = [np.float16, np.float32, np.float64]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 3, -1])
def test_one_number_that_is_not_finite_is_found_wherever_it_stands(dtype, bad: float, place: int) -> None:
    array = np.ones((4, 5), dtype)
    assert all_finite(array)
    array.reshape(-1)[place] = bad
    assert not all_finite(array)


@pytest.mark.parametrize("value", [LARGEST, -LARGEST, 1e20, 3e38])
def test_numbers_whose_squares_overflow_are_finite(value: float) -> None:
    assert all_finite(np.full((2, 3), value, np.float32))
    assert not all_finite(np.array([value, np.nan], np.float32))
    assert not all_finite(np.array([value, np.inf], np.float32))


def test_a_sum_of_squares_that_overflows_although_no_square_does_is_finite() -> None:
    assert all_finite(np.full(1000, 1e19, np.float32))


@pytest.mark.parametrize("dtype", FLOATS)
def test_nothing_at_all_is_finite(dtype) -> None:
    assert all_finite(np.empty((0, 7), dtype))


def test_arrays_that_are_not_in_one_piece_are_looked_at_where_they_have_numbers_only() -> None:
    array = np.ones((4, 6), np.float32)
    array[:, 1] = np.nan
    assert all_finite(array[:, ::2])
    assert not all_finite(array[:, 1::2])
    assert not all_finite(array.T)


@given(hnp.arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32)))
def test_the_answer_is_numpys_own(array: np.ndarray) -> None:
    assert all_finite(array) == bool(np.isfinite(array).all())
