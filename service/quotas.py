"""How much of the server an owner may use at once. Pure: `now` is an argument.

Sessions are counted by the session table; chunks and steps here, over all streams and calls of the owner.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.errors import QuotaExceededError


@dataclass(frozen=True, slots=True)
class Quota:
    """The most that an owner may have; None: as much as the server takes."""

    sessions: int | None = None
    """Open sessions."""
    queued_chunks: int | None = None
    """Chunks between their reading and their outcome."""
    steps_per_s: float | None = None
    """Steps a second in the long run. What was not used in the last second may come at once."""


class Account:
    """What one owner uses, held against its quota."""

    __slots__ = ("_at", "_steps", "queued", "quota")

    def __init__(self) -> None:
        self.quota: Quota | None = None
        """None: nothing to check. It may change at any time."""
        self.queued = 0
        """Chunks without an outcome; whoever adds some takes each away again."""
        self._steps = float("inf")
        """Steps that may come at once,"""
        self._at = 0.0
        """as it was then."""

    def check(self, steps: int, now: float) -> QuotaExceededError | None:
        """Pay for chunks of so many steps that are in `queued` already; returns why not, if they are too many.

        A token bucket that holds one second's steps. More steps than that are taken from a full bucket, which then
        owes them: long chunks are possible, and the rate holds.
        """
        quota = self.quota
        if quota is None:
            return None
        if quota.queued_chunks is not None and self.queued > quota.queued_chunks:
            return QuotaExceededError(
                f"queued chunks: your quota is {quota.queued_chunks}, this would make {self.queued}; "
                "wait for answers"
            )
        if (rate := quota.steps_per_s) is None:
            return None
        self._steps = min(rate, self._steps + (now - self._at) * rate)
        self._at = now
        missing = min(steps, rate) - self._steps
        if missing > 0:
            wait_s = math.ceil(missing / rate * 1000) / 1000
            return QuotaExceededError(f"steps: your quota is {rate:g} a second; try again in {wait_s:.3f} s")
        self._steps -= steps
        return None

    @contextmanager
    def taking(self, steps: int, now: float, chunks: int = 1) -> Iterator[None]:
        """Have chunks of so many steps in all under way.

        Raises:
            QuotaExceededError: that would be too much.
        """
        self.queued += chunks
        try:
            if (refusal := self.check(steps, now)) is not None:
                raise refusal
            yield
        finally:
            self.queued -= chunks
