"""What has to touch rows between two runs: copies for forks, snapshots and restores."""

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

Job = Callable[[], Any]


class Errand(NamedTuple):
    """Something that the thread which owns rows does while no run is under way."""

    start: Callable[[], Job]
    """On the event loop: looks rows up, which nobody changes until `done`, and returns the job. May raise."""
    done: Callable[[Any], None]
    """On the event loop, before the next run is chosen: gets what the job returned, or an exception."""


class Errands:
    """First come, first served, and a batch between any two."""

    def __init__(self) -> None:
        self._waiting: deque[Errand] = deque()
        self._batch_is_next = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, errand: Errand) -> None:
        """It is done when its turn comes."""
        self._waiting.append(errand)

    def next(self, *, batch_waits: bool) -> Errand | None:
        """The errand whose turn it is; None: there is none, or it is a batch's."""
        if not self._waiting or (batch_waits and self._batch_is_next):
            self._batch_is_next = False
            return None
        self._batch_is_next = True
        return self._waiting.popleft()
