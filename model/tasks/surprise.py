"""How surprising an error is, beside the errors before it.

Axes: N rows in time.
"""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
RECENT, HISTORY, QUIET = 10, 8000, 50
"""Rows that are averaged, rows they are held against (both as the source has them), and rows for which a lesser
surprise after a greater is none."""


def surprises(errors_N: Numbers) -> Numbers:
    """The mean of the last errors, in standard deviations of those of a longer time, where it is the largest for a while.

    Only errors up to a row count for it. A surprise is no probability; being ever larger the less likely the errors
    are under a normal distribution, it ranks rows as the tail of that distribution would.

    Args:
        errors_N: Absolute errors of forecasts, finite.

    Returns:
        `[N]`, 0 or more.

    Source: after the anomaly likelihood of Ahmad, Lavin, Purdy & Agha 2017.
    """
    recent_N = _mean_of_last(errors_N, RECENT)
    mean_N = _mean_of_last(errors_N, HISTORY)
    spread_N = np.sqrt(np.maximum(_mean_of_last(errors_N**2, HISTORY) - mean_N**2, 0))
    known_N = spread_N > 0
    scores_N = np.maximum(recent_N - mean_N, 0) / np.where(known_N, spread_N, 1)
    scores_N[~known_N] = 0
    padded = np.concatenate([np.zeros(QUIET), scores_N])
    before_N = np.lib.stride_tricks.sliding_window_view(padded, QUIET).max(axis=1)[: len(scores_N)]
    return np.where(scores_N > before_N, scores_N, 0)


def _mean_of_last(numbers_N: Numbers, count: int) -> Numbers:
    """Of `count` numbers up to each, fewer at the beginning."""
    sums = np.concatenate([[0.0], np.cumsum(numbers_N)])
    ends = np.arange(1, len(numbers_N) + 1)
    starts = np.maximum(ends - count, 0)
    means: Numbers = (sums[ends] - sums[starts]) / (ends - starts)
    return means
