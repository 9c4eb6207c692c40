"""The adding problem: two numbers among many are marked, and their sum is asked for at the end.

Axes: T time, B batch.

Source: Hochreiter & Schmidhuber 1997, experiment 4, as Arjovsky, Shah & Bengio 2016 have it: numbers from U[0, 1], one
mark in each half, mean square error. Whoever always answers 1 is wrong by 1/6.
"""

import numpy as np
import torch
from torch import Tensor

from model.tasks.drawn import Drawn
from model.tasks.numbers import NumberModel
from model.tasks.task import Batch

NAMES = ("number", "mark")


class Adding(Drawn):
    """Numbers and marks in, the sum out."""

    def new_model(self) -> NumberModel:
        """A model with fresh weights."""
        return NumberModel(len(NAMES), 1, self._recipe.model)

    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """Inputs `[B, T, 2]` and targets `[B, T, 1]`, which are not-a-number but for the last step."""
        steps = self._recipe.training.steps
        numbers_BT, marks_BT = rng.random((count, steps)), np.zeros((count, steps))
        half = steps // 2
        rows = np.arange(count)
        for first, end in ((0, half), (half, steps)):
            marks_BT[rows, rng.integers(first, end, count)] = 1
        targets_BT1 = torch.full((count, steps, 1), torch.nan)
        targets_BT1[:, -1, 0] = torch.from_numpy((numbers_BT * marks_BT).sum(axis=1))
        return Batch((torch.from_numpy(np.stack([numbers_BT, marks_BT], axis=2)).float(),), targets_BT1)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean square error of the sum."""
        return (outputs[:, -1].float() - targets[:, -1]).square().mean()

    def figures(self, loss: float) -> dict[str, float]:
        """The mean square error."""
        return {"validation_mse": loss}

    def test(self, model: NumberModel) -> dict[str, float]:
        """Mean square error, and the share of sums that are within 0.04, which the authors called right."""
        errors = torch.cat([(y - batch.targets)[:, -1, 0] for batch, y in self.answered(model, "test")])
        return {
            "test_mse": float(errors.square().mean()),
            "test_accuracy": float((errors.abs() < 0.04).float().mean()),
        }

    def said(self, figures: dict[str, float]) -> str:
        """The error on what is held out."""
        return f"mean square error {figures['validation_mse']:.6f} on held-out sums"
