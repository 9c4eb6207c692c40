"""Sequence to sequence: read all of one, and write another.

Axes: B batch, S steps that are read, T steps that are written, V symbols that are written.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model.cells.gated import CellError
from model.data.pairs import Pair, Pairs, split_names
from model.data.placed import DataError
from model.encoder_decoder import EncoderDecoder
from model.layer import Conditions
from model.model_recipe import ModelRecipe
from model.recipe import TranslateRecipe
from model.tasks.task import NOT_COUNTED, Batch, TaskModel

_BEGIN, _END = 0, 1
_EVALUATED_AT_ONCE = 256


class Translator(TaskModel):
    """An encoder-decoder as the other models are called.

    Args:
        names: Both vocabularies, see `model.data.pairs`.
        recipe: Whether there is attention, and sizes; every layer begins as a new cell does.

    Raises:
        CellError: the sizes ask for something that it has not.
    """

    def __init__(self, names: tuple[str, ...], recipe: TranslateRecipe) -> None:
        super().__init__()
        sizes, (source, target) = recipe.model, split_names(names)
        plain = ModelRecipe(
            embedding=sizes.embedding,
            hidden=sizes.hidden,
            layers=sizes.layers,
            cell=sizes.cell,
            dropout=sizes.dropout,
            zoneout=sizes.zoneout,
        )
        if sizes != plain or sizes.embedding is None or sizes.dropout.embedding or sizes.dropout.output:
            raise CellError(
                "translate: expected embedding, hidden, layers, cell, zoneout and dropout of layers only"
            )
        self.network = EncoderDecoder(
            len(source),
            len(target),
            embedding=sizes.embedding,
            hidden=sizes.hidden,
            layers=sizes.layers,
            cell=sizes.cell,
            attention=recipe.data.attention,
            both_ways=recipe.data.both_ways,
            conditions=Conditions(sizes.dropout, sizes.zoneout),
        )

    def forward(
        self, source_BS: Tensor, lengths_B: Tensor, given_BT: Tensor, state: tuple[Any, ...]
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """Write with the right symbols given.

        Args:
            source_BS: int64, what is read.
            lengths_B: int64, the steps of each row.
            given_BT: int64, what is written, a step late.
            state: None is needed: an empty tuple.

        Returns:
            Logits `[B, T, V]` and the empty state.
        """
        return self.network(source_BS, given_BT, lengths_B), state

    def write(self, source_BS: Tensor, lengths_B: Tensor, most: int) -> Tensor:
        """Write the likeliest symbol at every step, up to `most` of them: `[B, T]`; what follows `END` says nothing."""
        state, memory = self.network.prime(source_BS, lengths_B)
        last_B1 = source_BS.new_full((len(source_BS), 1), _BEGIN)
        done_B1, written = torch.zeros_like(last_B1, dtype=torch.bool), list[Tensor]()
        while len(written) < most and not done_B1.all():
            logits_B1V, state = self.network.decode(last_B1, state, memory)
            last_B1 = logits_B1V.argmax(dim=-1)
            done_B1 |= last_B1 == _END
            written.append(last_B1)
        return torch.cat(written, dim=1)


class Translate:
    """Learn from pairs, a few at a time; what counts in the end is sequences that are right from end to end.

    Args:
        recipe: Of the task `translate`; `steps` is the longest that may be written.
        pairs: What to read and to write.

    Raises:
        DataError: something longer has to be learnt.
    """

    carries = False

    def __init__(self, recipe: TranslateRecipe, pairs: Pairs) -> None:
        self._recipe, self._pairs = recipe, pairs
        source, target = split_names(pairs.names)
        self._source, self._target = ({name: k for k, name in enumerate(names)} for names in (source, target))
        longest = max(len(written) for _, written in pairs.parts["training"]) + 1
        if longest > recipe.training.steps:
            raise DataError(f"expected steps of {longest} or more, came {recipe.training.steps}")

    @property
    def summary(self) -> str:
        """How many pairs."""
        learnt, held_out = (len(self._pairs.parts[part]) for part in ("training", "validation"))
        return f"{learnt} pairs to learn, {held_out} held out"

    def new_model(self) -> Translator:
        """A model with fresh weights."""
        return Translator(self._pairs.names, self._recipe)

    def batch(self, number: int) -> Batch:
        """Any pairs."""
        plan, pairs = self._recipe.training, self._pairs.parts["training"]
        rng = np.random.default_rng([plan.seed, number])
        return self._batch([pairs[k] for k in rng.integers(len(pairs), size=plan.streams)])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Nats a symbol, the end included."""
        logits, wanted = outputs.float().flatten(0, 1), targets.flatten()
        return functional.cross_entropy(logits, wanted, ignore_index=NOT_COUNTED)

    @torch.no_grad()
    def evaluate(self, model: Translator, *, exactly: bool = False) -> float:  # noqa: ARG002 - always is
        """Nats a symbol of the held-out pairs."""
        nats, count, training = 0.0, 0, model.training
        device = next(model.parameters()).device
        model.eval()
        for batch in self._batches("validation"):
            outputs, _ = model(*(tensor.to(device) for tensor in batch.inputs), ())
            symbols = int((batch.targets != NOT_COUNTED).sum())
            nats, count = nats + symbols * float(self.loss(outputs.cpu(), batch.targets)), count + symbols
        model.train(training)
        return nats / count

    def figures(self, loss: float) -> dict[str, float]:
        """Nats a symbol."""
        return {"validation_nats": loss}

    @torch.no_grad()
    def test(self, model: Translator) -> dict[str, float]:
        """The share of sequences that are written without a mistake, and end where they should."""
        right, count, training = 0, 0, model.training
        model.eval()
        longest = max(len(written) for _, written in self._pairs.parts["test"]) + 1
        for batch in self._batches("test"):
            source_BS, lengths_B, _ = batch.inputs
            written_BT = model.write(source_BS, lengths_B, longest)
            wanted_BT = batch.targets
            steps = wanted_BT.shape[1]
            written_BT = functional.pad(written_BT, (0, max(0, steps - written_BT.shape[1])))[:, :steps]
            right += int(((written_BT == wanted_BT) | (wanted_BT == NOT_COUNTED)).all(dim=1).sum())
            count += len(wanted_BT)
        model.train(training)
        return {"test_exact": right / count}

    def said(self, figures: dict[str, float]) -> str:
        """Nats on what is held out."""
        return f"{figures['validation_nats']:.5f} nats a held-out symbol"

    def _batches(self, part: str) -> Iterator[Batch]:
        pairs = sorted(self._pairs.parts[part], key=lambda pair: len(pair[1]))
        for begin in range(0, len(pairs), _EVALUATED_AT_ONCE):
            yield self._batch(pairs[begin : begin + _EVALUATED_AT_ONCE])

    def _batch(self, pairs: list[Pair]) -> Batch:
        lengths_B = torch.tensor([len(read) for read, _ in pairs])
        source_BS = torch.zeros(len(pairs), int(lengths_B.max()), dtype=torch.int64)
        steps = max(len(written) for _, written in pairs) + 1
        given_BT = torch.full((len(pairs), steps), _END)
        targets_BT = torch.full((len(pairs), steps), NOT_COUNTED)
        for row, (read, written) in enumerate(pairs):
            tokens = torch.tensor([self._target[symbol] for symbol in written])
            source_BS[row, : len(read)] = torch.tensor([self._source[symbol] for symbol in read])
            given_BT[row, 0], given_BT[row, 1 : len(written) + 1] = _BEGIN, tokens
            targets_BT[row, : len(written)], targets_BT[row, len(written)] = tokens, _END
        return Batch((source_BS, lengths_B, given_BT), targets_BT)
