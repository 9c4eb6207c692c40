"""Whether numbers are finite, asked of every input and every new state."""

import math

import numpy as np
from numpy.typing import NDArray


def all_finite(array: NDArray[np.generic]) -> bool:
    """Whether no number of the array is NaN or infinite."""
    if array.dtype == np.float32 and array.flags.c_contiguous:
        flat = array.reshape(-1).view(np.float32)
        # One pass without a temporary: a sum of squares is finite only if every number is. It may still overflow,
        # of which `dot` would warn.
        if math.isfinite(np.vdot(flat, flat)):
            return True
    return bool(np.isfinite(array).all())
