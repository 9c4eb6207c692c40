"""Polyphonic music: which keys sound in the next frame, each of them for itself.

Axes: T frames, B batch, K keys.

Source: Boulanger-Lewandowski, Bengio & Vincent 2012, with independent keys as Chung et al. 2014 have it.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model.data.pieces import KEYS, Pieces, Roll
from model.recipe import MusicRecipe
from model.tasks.numbers import NumberModel
from model.tasks.task import Batch

_EVALUATED_AT_ONCE = 32


class Music:
    """Learn from whole pieces, a few at a time; what is wrong is counted over all frames but the first of a piece.

    Args:
        recipe: Of the task `music`; of a piece `steps` frames at most are learnt at once, from a random one on.
        pieces: The music.
    """

    carries = False

    def __init__(self, recipe: MusicRecipe, pieces: Pieces) -> None:
        self._recipe, self._parts = recipe, pieces.parts

    @property
    def summary(self) -> str:
        """How many pieces."""
        learnt, held_out = (len(self._parts[part]) for part in ("training", "validation"))
        return f"{learnt} pieces to learn, {held_out} held out"

    def new_model(self) -> NumberModel:
        """A model with fresh weights."""
        return NumberModel(KEYS, KEYS, self._recipe.model)

    def batch(self, number: int) -> Batch:
        """Some pieces: in every round all of them come once."""
        plan, pieces = self._recipe.training, self._parts["training"]
        places = number * plan.streams + np.arange(plan.streams)
        rng = np.random.default_rng([plan.seed, 1, number])
        chosen = [pieces[self._order(int(place) // len(pieces))[place % len(pieces)]] for place in places]
        starts = [int(rng.integers(max(1, len(roll) - plan.steps))) for roll in chosen]
        return _side_by_side([roll[k : k + plan.steps + 1] for roll, k in zip(chosen, starts, strict=True)])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Nats a frame, all keys together."""
        nats, frames = _nats(outputs, targets)
        return nats / frames

    @torch.no_grad()
    def evaluate(self, model: NumberModel, *, exactly: bool = False) -> float:  # noqa: ARG002 - always is
        """Nats a frame of the validation part."""
        return self._measured(model, "validation")

    def figures(self, loss: float) -> dict[str, float]:
        """Nats a frame."""
        return {"validation_nats": loss}

    def test(self, model: NumberModel) -> dict[str, float]:
        """Nats a frame of the test part."""
        return {"test_nats": self._measured(model, "test")}

    def said(self, figures: dict[str, float]) -> str:
        """Nats on what is held out."""
        return f"{figures['validation_nats']:.4f} nats a held-out frame"

    @torch.no_grad()
    def _measured(self, model: NumberModel, part: str) -> float:
        """All frames count alike, however long their piece is."""
        nats, frames, training = 0.0, 0, model.training
        model.eval()
        for batch in self._batches(part):
            outputs, _ = model(
                batch.inputs[0].to(model.center_in.device), model.initial_state(len(batch.targets))
            )
            some, count = _nats(outputs.cpu(), batch.targets)
            nats, frames = nats + float(some), frames + count
        model.train(training)
        return nats / frames

    def _batches(self, part: str) -> Iterator[Batch]:
        pieces = sorted(self._parts[part], key=len)
        for begin in range(0, len(pieces), _EVALUATED_AT_ONCE):
            yield _side_by_side(pieces[begin : begin + _EVALUATED_AT_ONCE])

    def _order(self, number: int) -> list[int]:
        """The order of the pieces in a round."""
        rng = np.random.default_rng([self._recipe.training.seed, 0, number])
        order: list[int] = rng.permutation(len(self._parts["training"])).tolist()
        return order


def _side_by_side(rolls: list[Roll]) -> Batch:
    """Frames and the frames after them `[B, T, K]`; targets beyond a piece are not-a-number."""
    longest = max(map(len, rolls)) - 1
    inputs_BTK = torch.zeros(len(rolls), longest, KEYS)
    targets_BTK = torch.full_like(inputs_BTK, torch.nan)
    for row, roll in enumerate(rolls):
        frames_TK = torch.from_numpy(roll)
        inputs_BTK[row, : len(roll) - 1], targets_BTK[row, : len(roll) - 1] = frames_TK[:-1], frames_TK[1:]
    return Batch((inputs_BTK,), targets_BTK)


def _nats(logits_BTK: Tensor, targets_BTK: Tensor) -> tuple[Tensor, int]:
    """Nats of all frames that count, and how many they are."""
    counts_BT = ~targets_BTK[..., 0].isnan()
    logits, targets = logits_BTK.float()[counts_BT], targets_BTK[counts_BT]
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum"), int(counts_BT.sum())
