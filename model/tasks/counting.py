"""a^n b^n: a string of a's, and then as many b's. A model has to count, and is then asked for longer strings.

Axes: T time, B batch, V symbols.

Source: Gers & Schmidhuber 2001; that LSTMs count where GRUs do not: Weiss, Goldberg & Yahav 2018.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model.tasks.characters import CharacterModel
from model.tasks.drawn import Drawn
from model.tasks.task import NOT_COUNTED, Batch

NAMES = ("#", "a", "b")
_EDGE, _A, _B = range(3)
LONGER = 5
"""The test has strings of up to this many times the length that was trained."""


class Counting(Drawn):
    """Predict the next symbol of `# a a a b b b #`, where it is certain: from the first b on.

    Strings have 1 to N a's, N being what `steps` has room for: 2 N + 1 steps.
    """

    def new_model(self) -> CharacterModel:
        """A model with fresh weights."""
        return CharacterModel(len(NAMES), self._recipe.model)

    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """Tokens and targets `[B, T]` of strings of any length that fits."""
        return strings(torch.from_numpy(rng.integers(1, self._longest + 1, count)), self._longest)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Nats a certain symbol."""
        logits, wanted = outputs.float().flatten(0, 1), targets.flatten()
        return functional.cross_entropy(logits, wanted, ignore_index=NOT_COUNTED)

    def figures(self, loss: float) -> dict[str, float]:
        """Nats a certain symbol."""
        return {"validation_nats": loss}

    @torch.no_grad()
    def test(self, model: CharacterModel) -> dict[str, float]:
        """The longest n up to which every string is right, and the share of right ones among those longer than trained."""
        right = self._right(model, LONGER * self._longest)
        wrong = (~right).nonzero()
        upto = int(wrong[0]) if len(wrong) else len(right)
        longer = right[self._longest :]
        return {
            "trained_n": float(self._longest),
            "right_up_to_n": float(upto),
            "test_accuracy": float(longer.float().mean()),
        }

    def said(self, figures: dict[str, float]) -> str:
        """Nats on what is held out."""
        return f"{figures['validation_nats']:.6f} nats a certain symbol, held out"

    @property
    def _longest(self) -> int:
        return (self._recipe.training.steps - 1) // 2

    def _right(self, model: CharacterModel, longest: int) -> Tensor:
        """Whether every certain symbol of the strings of 1, 2 ... n is the likeliest."""
        batch = strings(torch.arange(1, longest + 1), longest)
        tokens_BT = batch.inputs[0].to(model.embedding.weight.device)
        training = model.training
        logits_BTV, _ = model.eval()(tokens_BT, model.initial_state(longest))
        model.train(training)
        guessed_BT: Tensor = logits_BTV.argmax(dim=-1).cpu()
        return ((guessed_BT == batch.targets) | (batch.targets == NOT_COUNTED)).all(dim=1)


def strings(counts_B: Tensor, longest: int) -> Batch:
    """Tokens and targets `[B, 2 longest + 1]` of strings with these numbers of a's.

    After the sign an a is certain; after an a nothing is; after the n-th b the end is, after any other b another.
    """
    t = torch.arange(2 * longest + 1)
    n = counts_B[:, None]
    tokens_BT = torch.where(t == 0, _EDGE, torch.where(t <= n, _A, torch.where(t <= 2 * n, _B, _EDGE)))
    targets_BT = torch.where(t == 0, _A, torch.where(t <= n, NOT_COUNTED, torch.where(t < 2 * n, _B, _EDGE)))
    return Batch((tokens_BT,), torch.where(t <= 2 * n, targets_BT, NOT_COUNTED))
