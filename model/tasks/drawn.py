"""Tasks whose examples are drawn: no data, and no two updates that see the same.

Axes: T time, B batch.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.recipe import GeneratedRecipe, ListOpsRecipe
from model.tasks.task import Batch, TaskModel

_AT_ONCE = 256
_PARTS = ("training", "validation", "test")


@dataclass(frozen=True)
class Rules:
    """What stands for data where examples are drawn by rules."""

    names: tuple[str, ...]
    """The symbols, or what the numbers of a step are."""

    @property
    def sha256(self) -> str:
        """Of the names: with the seed of the recipe they say which examples."""
        return hashlib.sha256("\n".join(self.names).encode()).hexdigest()


class Drawn(ABC):
    """The base: a task says how one batch is drawn, what its model is and what counts.

    Every batch comes from a generator of its own, made of the recipe's seed, the part and the batch's number.

    Args:
        recipe: Of a task that is drawn; `steps` is the length of its sequences.
        rules: The names of what is drawn.
    """

    carries = False

    def __init__(self, recipe: GeneratedRecipe | ListOpsRecipe, rules: Rules) -> None:
        self._recipe, self._names = recipe, rules.names

    @property
    def summary(self) -> str:
        """How many examples."""
        plan = self._recipe.training
        return (
            f"{plan.updates * plan.streams} sequences drawn to learn, {self._recipe.data.held_out} held out"
        )

    @abstractmethod
    def new_model(self) -> TaskModel:
        """A model with fresh weights."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """That many examples."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over all that counts."""

    @abstractmethod
    def figures(self, loss: float) -> dict[str, float]:
        """A held-out loss as people read it."""

    @abstractmethod
    def test(self, model: Any) -> dict[str, float]:
        """The figures on the examples of the test."""

    @abstractmethod
    def said(self, figures: dict[str, float]) -> str:
        """The figure to tell, in words."""

    def batch(self, number: int) -> Batch:
        """New examples."""
        return self.draw(self._generator("training", number), self._recipe.training.streams)

    def evaluate(self, model: Any, *, exactly: bool = False) -> float:  # noqa: ARG002 - always is
        """The loss on the held-out examples."""
        found = [
            (float(self.loss(y, batch.targets)), len(y)) for batch, y in self.answered(model, "validation")
        ]
        return sum(loss * count for loss, count in found) / sum(count for _, count in found)

    @torch.no_grad()
    def answered(self, model: Any, part: str) -> Iterator[tuple[Batch, Tensor]]:
        """The held-out examples of a part, and what a model in evaluation makes of them."""
        left, number, training = self._recipe.data.held_out, 0, model.training
        model.eval()
        while left:
            batch = self.draw(self._generator(part, number), min(left, _AT_ONCE))
            device = next(model.parameters()).device
            inputs = (tensor.to(device) for tensor in batch.inputs)
            outputs, _ = model(*inputs, model.initial_state(len(batch.targets)))
            yield batch, outputs.cpu()
            left, number = left - len(batch.targets), number + 1
        model.train(training)

    def _generator(self, part: str, number: int) -> np.random.Generator:
        return np.random.default_rng([self._recipe.training.seed, _PARTS.index(part), number])
