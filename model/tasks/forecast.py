"""Forecasting: the columns of a table some steps ahead, all of them at once or one after the other.

Axes: T time, B batch, C columns, I inputs, O outputs, h horizon.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.data.placed import DataError
from model.data.series import Series
from model.data_recipe import SeriesData
from model.recipe import SeriesRecipe
from model.tasks.numbers import NumberModel
from model.tasks.task import Batch

_EVALUATED_AT_ONCE = 512


class Ports:
    """Which columns are read in a step, and which are forecast: the order of the numbers in both.

    Read: the values and the past columns of the step, then the known columns of every step of the reach. Forecast:
    the values of every step of the reach; where a model goes on from its own forecasts the reach is one step, and the
    past columns are forecast too, for it needs them.
    """

    def __init__(self, data: SeriesData) -> None:
        self.data = data
        self.reach = 1 if data.recursive else data.horizon
        self.present = len(data.values) + len(data.past)
        self.forecast = self.present if data.recursive else len(data.values)
        self.inputs = self.present + self.reach * len(data.known)
        self.outputs = self.reach * self.forecast

    @property
    def follows(self) -> tuple[int, ...]:
        """The input that each output goes on from: the last number of its own column."""
        return tuple(range(self.forecast)) * self.reach

    def read(self, rows_BTC: Tensor) -> Tensor:
        """The inputs `[B, T - reach, I]` of rows."""
        steps = rows_BTC.shape[1] - self.reach
        ahead = [rows_BTC[:, 1 + k : 1 + k + steps, self.present :] for k in range(self.reach)]
        return torch.cat([rows_BTC[:, :steps, : self.present], *ahead], dim=-1)

    def wanted(self, rows_BTC: Tensor) -> Tensor:
        """The outputs `[B, T - reach, O]` that are right for `read`."""
        steps = rows_BTC.shape[1] - self.reach
        ahead = [rows_BTC[:, 1 + k : 1 + k + steps, : self.forecast] for k in range(self.reach)]
        return torch.cat(ahead, dim=-1)


def new_forecaster(recipe: SeriesRecipe) -> NumberModel:
    """A model with fresh weights, and no scales yet."""
    ports = Ports(recipe.data)
    changes = ports.present if recipe.data.changes else 0
    return NumberModel(ports.inputs, ports.outputs, recipe.model, ports.follows, changes)


class Forecast:
    """Learn from windows anywhere in the training part; measured on every window of the others.

    An error is the mean square over all values and steps of the horizon, in standard deviations of the training part,
    after the window's `steps` were read from a fresh state: what most publications report.

    Args:
        recipe: Of the task `forecast`.
        series: Its table.

    Raises:
        DataError: a part is too short for a window.
    """

    carries = False

    def __init__(self, recipe: SeriesRecipe, series: Series) -> None:
        self._recipe, self._plan, self._series = recipe, recipe.training, series
        self._ports = Ports(recipe.data)
        self._rows_NC = torch.from_numpy(series.numbers_NC.astype(np.float32))
        first, second = series.borders
        self._ends = {"training": first, "validation": second, "test": len(self._rows_NC)}
        needed, shortest = self._plan.steps + recipe.data.horizon, min(first, second - first)
        if shortest < needed:
            raise DataError(f"{recipe.data.source}: a part has {shortest} rows, a window needs {needed}")
        training_NC = series.numbers_NC[:first]
        self._center_C, self._scale_C = training_NC.mean(axis=0), training_NC.std(axis=0)
        self._scale_C[self._scale_C == 0] = 1.0  # a column that never changes there

    @property
    def summary(self) -> str:
        """How long the series is."""
        first, second = self._series.borders
        return f"{first} rows to learn, {second - first} held out"

    def new_model(self) -> NumberModel:
        """A model with fresh weights and the scales of the training part."""
        model = new_forecaster(self._recipe)
        for name, numbers_C in (("center", self._center_C), ("scale", self._scale_C)):
            row_11C = torch.from_numpy(numbers_C.astype(np.float32)).expand(1, 1 + self._ports.reach, -1)
            getattr(model, f"{name}_in").copy_(self._ports.read(row_11C)[0, 0])
            getattr(model, f"{name}_out").copy_(self._ports.wanted(row_11C)[0, 0])
        return model

    def batch(self, number: int) -> Batch:
        """Windows that start anywhere in the training part."""
        rng = np.random.default_rng([self._plan.seed, number])
        length = self._plan.steps + self._ports.reach
        starts_B = rng.integers(self._ends["training"] - length + 1, size=self._plan.streams)
        rows_BTC = self._rows(starts_B, length)
        return Batch((self._ports.read(rows_BTC),), self._ports.wanted(rows_BTC))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean square error over all steps of the windows, in standard deviations."""
        return ((outputs.float() - targets) / self._scale(targets)).square().mean()

    def evaluate(self, model: NumberModel, *, exactly: bool = False) -> float:  # noqa: ARG002 - always is
        """Mean square error on the validation part."""
        return self._errors(model, "validation")[0]

    def figures(self, loss: float) -> dict[str, float]:
        """The mean square error."""
        return {"validation_mse": loss}

    def test(self, model: NumberModel) -> dict[str, float]:
        """Mean square and mean absolute error on the test part."""
        square, absolute = self._errors(model, "test")
        return {"test_mse": square, "test_mae": absolute}

    def said(self, figures: dict[str, float]) -> str:
        """The error on held-out windows."""
        return f"mean square error {figures['validation_mse']:.4f} on held-out windows"

    def _rows(self, starts_B: NDArray[np.int64], length: int) -> Tensor:
        return self._rows_NC[torch.from_numpy(starts_B)[:, None] + torch.arange(length)]

    def _scale(self, like: Tensor) -> Tensor:
        values = torch.from_numpy(self._scale_C[: self._ports.forecast]).to(like)
        return values.repeat(like.shape[-1] // self._ports.forecast)

    @torch.no_grad()
    def _errors(self, model: NumberModel, part: str) -> tuple[float, float]:
        square, absolute, count, training = 0.0, 0.0, 0, model.training
        model.eval()
        for rows_BTC in self._windows(part):
            forecast_BhC = self._forecasts(model, rows_BTC.to(model.center_in.device)).cpu()
            wanted_BhC = rows_BTC[:, self._plan.steps :, : forecast_BhC.shape[2]]
            errors = (forecast_BhC - wanted_BhC).double() / torch.from_numpy(
                self._scale_C[: wanted_BhC.shape[2]]
            )
            square, absolute = square + float(errors.square().sum()), absolute + float(errors.abs().sum())
            count += errors.numel()
        model.train(training)
        return square / count, absolute / count

    def _windows(self, part: str) -> Iterator[Tensor]:
        """All windows whose horizon lies in a part; what is read may begin before it."""
        names = list(self._ends)
        first = self._ends[names[names.index(part) - 1]] - self._plan.steps
        last = self._ends[part] - self._plan.steps - self._recipe.data.horizon
        starts = np.arange(first, last + 1)
        for begin in range(0, len(starts), _EVALUATED_AT_ONCE):
            some_B = starts[begin : begin + _EVALUATED_AT_ONCE]
            yield self._rows(some_B, self._plan.steps + self._recipe.data.horizon)

    def _forecasts(self, model: NumberModel, rows_BTC: Tensor) -> Tensor:
        """The forecasts of the values `[B, h, C]` after `steps` rows; only what is known is looked at beyond them."""
        values, present, steps = len(self._recipe.data.values), self._ports.present, self._plan.steps
        state = model.initial_state(len(rows_BTC))
        y_BTO, state = model(self._ports.read(rows_BTC[:, : steps + self._ports.reach]), state)
        steps_ahead: list[Tensor] = [y_BTO[:, -1]]
        if not self._recipe.data.recursive:
            return steps_ahead[0].view(len(rows_BTC), self._ports.reach, values)
        for k in range(1, self._recipe.data.horizon):
            x_BI = torch.cat([steps_ahead[-1], rows_BTC[:, steps + k, present:]], dim=-1)
            y_BTO, state = model(x_BI.unsqueeze(1), state)
            steps_ahead.append(y_BTO[:, 0])
        return torch.stack(steps_ahead, dim=1)[..., :values]
