"""Histories that nobody has seen yet, on all cores: `make soak`."""

import os
import random
import time
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.simulation.history import History

ENOUGH = 10_000
HISTORIES = 12_000
SECONDS = 900
"""No history begins later."""


def run_some(first: int, apart: int) -> tuple[int, list[int]]:
    """How many histories this core has run, and the seeds of those that failed."""
    end, seeds, failed = time.monotonic() + SECONDS, range(first, first + HISTORIES, apart), []
    for count, seed in enumerate(seeds):
        if time.monotonic() > end:
            return count, failed
        try:
            History(seed).run()
        except Exception:
            failed.append(seed)
    return len(seeds), failed


@pytest.mark.soak
@pytest.mark.timeout(2 * SECONDS)
def test_ten_thousand_histories_that_nobody_has_seen_yet_end_well() -> None:
    cores, first = os.cpu_count() or 1, random.SystemRandom().randrange(1 << 40)
    with ProcessPoolExecutor(cores) as pool:
        done = list(pool.map(run_some, range(first, first + cores), [cores] * cores))
    failed = [seed for _, seeds in done for seed in seeds]
    assert not failed, "replay each with History(seed).run()"
    assert sum(count for count, _ in done) >= ENOUGH
