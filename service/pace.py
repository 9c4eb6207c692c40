"""How long the next run will take, and how many steps of long chunks one should have. Pure."""

from math import inf

from service.batch import Batch

FIRST_STEPS = 16
"""Of a run, before any has shown how long it takes."""
FEW_STEPS = 4
"""Whoever sends no more at once waits for the answer."""
REMEMBERED = 100
"""Runs for which those are remembered."""
_NEW = 0.2
"""Weight of the newest run."""


class Pace:
    """What runs took until now.

    Args:
        run_s: How long a run of long chunks is to take. Each costs something beside itself, and keeps others waiting.
        beside_s: The same beside sessions that send a few steps and wait for them.
    """

    def __init__(self, run_s: float = inf, beside_s: float = inf) -> None:
        self._run_s, self._beside_s = run_s, beside_s
        self._most: dict[int, int] = {}
        self._steps: dict[int, int] = {}
        self._remembered = 0
        self._seconds: dict[tuple[int, int, int], float] = {}
        """Moving averages, one for each model and power of two of sessions and of steps."""

    def add_model(self, number: int, most_steps: int) -> None:
        """Know a model of which no run may have more steps."""
        self._most[number] = most_steps
        self._steps[number] = most_steps if self._run_s == inf else min(FIRST_STEPS, most_steps)

    def steps(self, model: int) -> int:
        """Most steps of its next run."""
        return self._steps[model]

    def predict(self, batch: Batch) -> float:
        """Seconds; infinite for a size that never ran."""
        return self._seconds.get(_size(batch), inf)

    def learn(self, batch: Batch, seconds: float) -> None:
        """A run took so long."""
        before = self._seconds.get(_size(batch), seconds)
        self._seconds[_size(batch)] = before + _NEW * (seconds - before)
        self._remembered = max(0, self._remembered - 1)
        if any(cohort.length <= FEW_STEPS for cohort in batch.cohorts):
            self._remembered = REMEMBERED
        steps = self._steps[batch.model]
        if 2 * batch.longest > steps:  # others say nothing of long ones
            wanted_s = self._beside_s if self._remembered else self._run_s
            # Fewer at once, for somebody waits; more only little by little, for the next run may have more sessions.
            fitting = int(min(2 * steps, batch.longest * wanted_s / max(seconds, 1e-9)))
            # A power of two, as are the buffers of models on a device.
            self._steps[batch.model] = min(1 << max(fitting, 1).bit_length() - 1, self._most[batch.model])


def _size(batch: Batch) -> tuple[int, int, int]:
    return batch.model, batch.size.bit_length(), batch.longest.bit_length()
