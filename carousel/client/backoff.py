"""How long to wait before trying again."""

import random
from collections.abc import Callable

FIRST_S = 0.02
LONGEST_S = 2.0


class Backoff:
    """Delays that double from 20 ms to 2 s, each shortened by up to a half.

    The jitter keeps clients that lost the same server from coming back in one wave.
    """

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._tries = 0

    def next_s(self) -> float:
        """Seconds to wait before the next try."""
        delay_s = min(FIRST_S * 2.0 ** min(self._tries, 16), LONGEST_S)
        self._tries += 1
        return delay_s * (1 - self._draw() / 2)

    def reset(self) -> None:
        """It worked: the next trouble starts with the shortest delay again."""
        self._tries = 0
