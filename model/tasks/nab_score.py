"""The score of the Numenta Anomaly Benchmark, standard profile: early detections are worth more, false ones cost.

With s(y) = 2 / (1 + e^{5 y}) - 1, the first row of a window that is detected gains s(y) / s(-1), where y runs from -1 at
the window's first row towards 0 at its last; a window without a detection costs 1. Every detection outside of windows
adds 0.11 s(y), y being its distance from the window before it in widths of that window; far from it, or before any
window, that is -0.11. The sum is scaled so that detecting nothing gives 0, and all at once and nothing else 100.

Source: Lavin & Ahmad 2015; windows and weights as version 1.1 of the benchmark has them. Written from the description;
`carousel reproduce nab` holds it to the published score of one of the benchmark's own detectors.

Axes: N rows of a series.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.data.watched import Watched

_FALSE, _FAR = 0.11, 3.0
Scores = NDArray[np.float64]
Gains = tuple[Scores, Scores, NDArray[np.int64]]


def nab_score(series: Sequence[Watched], scores: Sequence[Scores]) -> tuple[float, float]:
    """The best score that one threshold for all series gives, and the threshold.

    The benchmark has no part of its own for choosing it, and takes the best one as well.

    Args:
        series: With their windows.
        scores: Of every row `[N]`; a row is detected where its score is the threshold or more.

    Returns:
        The score, 100 at most, and the threshold.
    """
    parts = [_gains(one, some) for one, some in zip(series, scores, strict=True)]
    at_N, gain_N, window_N = (
        np.concatenate(column) for column in zip(*_numbered(series, parts), strict=True)
    )
    windows = sum(len(one.windows) for one in series)
    order = np.argsort(-at_N, kind="stable")
    best, threshold = 0.0, float("inf")
    found, total = np.full(windows, -1.0), -float(windows)
    levels = at_N[order]
    last_of_level = np.append(levels[1:] != levels[:-1], True)
    for row, complete in zip(order, last_of_level, strict=True):
        window = window_N[row]
        if window < 0:
            total += gain_N[row]
        elif gain_N[row] > found[window]:
            total += gain_N[row] - found[window]
            found[window] = gain_N[row]
        score = 100 * (total + windows) / (2 * windows)
        if complete and score > best:
            best, threshold = score, float(at_N[row])
    return float(best), threshold


def _numbered(series: Sequence[Watched], parts: list[Gains]) -> list[Gains]:
    """The same, the windows of all series numbered through."""
    numbered, before = [], 0
    for one, (at, gain, window) in zip(series, parts, strict=True):
        numbered.append((at, gain, np.where(window < 0, -1, window + before)))
        before += len(one.windows)
    return numbered


def _gains(one: Watched, scores_N: Scores) -> Gains:
    """Of every row that is judged: its score, what a detection there is worth, and its window or -1."""
    rows = np.arange(len(one.values_N))
    gain_N, window_N = np.full(len(rows), -_FALSE), np.full(len(rows), -1)
    for number, (first, last) in enumerate(one.windows):
        after = rows > last
        gain_N[after] = _FALSE * _sigmoid((rows[after] - last) / (last - first))
        inside = (rows >= first) & (rows <= last)
        width = last - first + 1
        gain_N[inside] = _sigmoid(-(last - rows[inside] + 1) / width) / _sigmoid(np.array(-1.0))
        window_N[inside] = number
    judged = slice(one.probation, None)
    return scores_N[judged], gain_N[judged], window_N[judged]


def _sigmoid(y: Scores) -> Scores:
    return np.where(y > _FAR, -1.0, 2 / (1 + np.exp(5 * np.minimum(y, _FAR))) - 1)
