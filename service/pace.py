"""How long the next run will take, from how long runs of its size took. Pure."""

from service.batch import Batch

_NEW = 0.2
"""Weight of the newest run."""


class Pace:
    """Moving averages, one for each model and power of two of sessions and of steps."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[int, int, int], float] = {}

    def predict(self, batch: Batch) -> float:
        """Seconds; infinite for a size that never ran."""
        return self._seconds.get(_size(batch), float("inf"))

    def learn(self, batch: Batch, seconds: float) -> None:
        """A run took so long."""
        before = self._seconds.get(_size(batch), seconds)
        self._seconds[_size(batch)] = before + _NEW * (seconds - before)


def _size(batch: Batch) -> tuple[int, int, int]:
    return batch.model, batch.size.bit_length(), batch.longest.bit_length()
