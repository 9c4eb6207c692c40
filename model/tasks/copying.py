"""Copy memory: ten symbols, a long blank, a sign, and the ten symbols are asked for again.

Axes: T time, B batch, V symbols.

Source: Hochreiter & Schmidhuber 1997, experiment 5, as Arjovsky, Shah & Bengio 2016 have it: cross-entropy over all
steps; whoever remembers nothing has 10 ln 8 / T.
"""

import math

import numpy as np
import torch
from torch import Tensor

from model.data.placed import DataError
from model.recipe import GeneratedRecipe
from model.tasks.characters import CharacterModel, cross_entropy
from model.tasks.drawn import Drawn, Rules
from model.tasks.task import Batch

_SYMBOLS, _REMEMBERED = 8, 10
NAMES = (*(str(symbol) for symbol in range(1, 1 + _SYMBOLS)), "_", ">")
_BLANK, _SIGN = _SYMBOLS, _SYMBOLS + 1


class Copying(Drawn):
    """Symbols in, and at the end the same symbols out.

    Raises:
        DataError: the sequences have no room for the symbols.
    """

    def __init__(self, recipe: GeneratedRecipe, rules: Rules) -> None:
        super().__init__(recipe, rules)
        if recipe.training.steps < 2 * _REMEMBERED + 1:
            raise DataError(f"steps: expected {2 * _REMEMBERED + 1} or more, came {recipe.training.steps}")

    def new_model(self) -> CharacterModel:
        """A model with fresh weights."""
        return CharacterModel(len(NAMES), self._recipe.model)

    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """Tokens and targets `[B, T]`: blank until the last ten steps."""
        steps = self._recipe.training.steps
        symbols_BR = torch.from_numpy(rng.integers(_SYMBOLS, size=(count, _REMEMBERED)))
        tokens_BT, targets_BT = (torch.full((count, steps), _BLANK) for _ in range(2))
        tokens_BT[:, :_REMEMBERED], targets_BT[:, -_REMEMBERED:] = symbols_BR, symbols_BR
        tokens_BT[:, -_REMEMBERED - 1] = _SIGN
        return Batch((tokens_BT,), targets_BT)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Nats a step."""
        return cross_entropy(outputs, targets)

    def figures(self, loss: float) -> dict[str, float]:
        """Nats a step, and what they are of the nats of whoever remembers nothing."""
        memoryless = _REMEMBERED * math.log(_SYMBOLS) / self._recipe.training.steps
        return {"validation_nats": loss, "of_memoryless": loss / memoryless}

    def test(self, model: CharacterModel) -> dict[str, float]:
        """Nats a step, and the share of the symbols that are right."""
        nats, right, count = 0.0, 0.0, 0
        for batch, logits_BTV in self.answered(model, "test"):
            nats += float(cross_entropy(logits_BTV, batch.targets)) * len(logits_BTV)
            guessed_BR = logits_BTV[:, -_REMEMBERED:].argmax(dim=-1)
            right += float((guessed_BR == batch.targets[:, -_REMEMBERED:]).float().mean()) * len(logits_BTV)
            count += len(logits_BTV)
        of_memoryless = self.figures(nats / count)["of_memoryless"]
        return {"test_nats": nats / count, "of_memoryless": of_memoryless, "test_accuracy": right / count}

    def said(self, figures: dict[str, float]) -> str:
        """Nats on what is held out."""
        nats, share = figures["validation_nats"], figures["of_memoryless"]
        return f"{nats:.6f} nats a held-out step, {share:.1%} of those without a memory"
