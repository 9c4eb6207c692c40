"""Time of a run of one graph as a ratio to another, taken in turns on one thread."""

import statistics
import time
from collections.abc import Callable

LEAST_RUNS, SECONDS = 15, 0.2


def time_ratio(one: Callable[[], object], other: Callable[[], object]) -> tuple[float, float]:
    """Run two things in turns.

    Returns:
        The median time of the first in seconds, and as a ratio to that of the second.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for run in (one, other):  # what is made at the first run is not measured
        run()
    end = time.perf_counter() + SECONDS
    while len(times[0]) < LEAST_RUNS or time.perf_counter() < end:
        for run, taken in zip((one, other), times, strict=True):
            started = time.perf_counter()
            run()
            taken.append(time.perf_counter() - started)
    first, second = map(statistics.median, times)
    return first, first / second
