"""Anomalies: one forecaster for many series, and where its errors are a surprise.

Axes: T time, B batch (series), N rows of a series.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.data.placed import DataError
from model.data.watched import NAB, Collection, Watched, windowed_gaussian
from model.recipe import AnomaliesRecipe
from model.tasks.nab_score import nab_score
from model.tasks.numbers import NumberModel
from model.tasks.surprise import surprises
from model.tasks.task import Batch

_HELD_OUT = 0.2
"""Of the rows that may be learnt from, the last."""
_STEPS_AT_ONCE = 512
_MOST = 100.0
"""Standard deviations beyond which a value is cut off: one broken sensor must not be all that the network hears of."""


def new_watcher(recipe: AnomaliesRecipe) -> NumberModel:
    """A model that reads a number and forecasts the next."""
    return NumberModel(1, 1, recipe.model, follows=(0,))


class Anomalies:
    """Learn to forecast the beginnings of all series, and be surprised by the rest of them.

    Each series is put into standard deviations of its own beginning before the model reads it, so that one model
    serves them all; the scale is the series', not the model's. Nothing after the beginnings is learnt from.

    Args:
        recipe: Of the task `anomalies`; `steps` rows are learnt at once.
        collection: The series.

    Raises:
        DataError: the beginning of a series is too short for the steps.
    """

    carries = False

    def __init__(self, recipe: AnomaliesRecipe, collection: Collection) -> None:
        self._recipe, self._series = recipe, collection.series
        shortest = min(self._learnt(one) for one in self._series)
        if shortest < recipe.training.steps + 1:
            raise DataError(f"expected steps of {shortest - 1} or less, came {recipe.training.steps}")
        self._scaled = [_scaled(one) for one in self._series]

    @property
    def summary(self) -> str:
        """How many rows."""
        rows = sum(self._learnt(one) for one in self._series)
        held_out = sum(one.probation for one in self._series) - rows
        return f"{rows} rows of {len(self._series)} series to learn, {held_out} held out"

    def new_model(self) -> NumberModel:
        """A model with fresh weights."""
        return new_watcher(self._recipe)

    def batch(self, number: int) -> Batch:
        """Windows of any series."""
        plan = self._recipe.training
        rng = np.random.default_rng([plan.seed, number])
        rows = []
        for which in rng.integers(len(self._series), size=plan.streams):
            start = rng.integers(self._learnt(self._series[which]) - plan.steps)
            rows.append(self._scaled[which][start : start + plan.steps + 1])
        rows_BT1 = torch.from_numpy(np.stack(rows)).unsqueeze(2)
        return Batch((rows_BT1[:, :-1],), rows_BT1[:, 1:])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean absolute error of the next number, which rare jumps do not rule."""
        return (outputs.float() - targets).abs().mean()

    def evaluate(self, model: NumberModel, *, exactly: bool = False) -> float:  # noqa: ARG002 - always is
        """Mean absolute error of the held-out part of the beginnings, all series alike."""
        errors = self._errors(model, [one.probation for one in self._series])
        kept = [some[self._learnt(one) :] for one, some in zip(self._series, errors, strict=True)]
        return float(np.mean([some.mean() for some in kept]))

    def figures(self, loss: float) -> dict[str, float]:
        """The mean absolute error."""
        return {"validation_mae": loss}

    def test(self, model: NumberModel) -> dict[str, float]:
        """The score of the benchmark, and that of a detector of its own as far as its scores are there."""
        errors = self._errors(model, [len(one.values_N) for one in self._series])
        score, threshold = nab_score(self._series, [surprises(some) for some in errors])
        figures = {"nab_score": score, "threshold": threshold}
        theirs = windowed_gaussian() if self._recipe.data.source == NAB else {}
        if theirs:  # holds the arithmetic to the published score
            scores = [theirs[one.name] for one in self._series]
            figures["windowed_gaussian_again"] = nab_score(self._series, scores)[0]
        return figures

    def said(self, figures: dict[str, float]) -> str:
        """The error on what is held out."""
        return f"mean absolute error {figures['validation_mae']:.4f} on held-out rows"

    def _learnt(self, one: Watched) -> int:
        return int((1 - _HELD_OUT) * one.probation)

    @torch.no_grad()
    def _errors(self, model: NumberModel, lengths: list[int]) -> list[NDArray[np.float64]]:
        """Absolute errors of the forecasts of each row from those before it; 0 for the first."""
        longest, training, device = max(lengths), model.training, model.center_in.device
        rows_BN = torch.zeros(len(lengths), longest)
        for row, (scaled, length) in enumerate(zip(self._scaled, lengths, strict=True)):
            rows_BN[row, :length] = torch.from_numpy(scaled[:length])
        model.eval()
        state, parts = model.initial_state(len(lengths)), []
        for inputs_BT in torch.split(rows_BN, _STEPS_AT_ONCE, dim=1):
            outputs, state = model(inputs_BT.unsqueeze(2).to(device), state)
            parts.append(outputs[..., 0].cpu())
        model.train(training)
        errors_BN = torch.zeros_like(rows_BN)
        errors_BN[:, 1:] = (torch.cat(parts, dim=1)[:, :-1] - rows_BN[:, 1:]).abs()
        return [errors_BN[row, :length].double().numpy() for row, length in enumerate(lengths)]


def _scaled(one: Watched) -> NDArray[np.float32]:
    """In standard deviations of the beginning."""
    known = one.values_N[: one.probation]
    scaled = (one.values_N - known.mean()) / (known.std() or 1.0)
    cut: NDArray[np.float32] = np.clip(scaled, -_MOST, _MOST).astype(np.float32)
    return cut
