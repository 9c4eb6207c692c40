"""The character language task: predict the next character of a text.

Axes: T time, B batch (parallel streams), E embedding, H hidden, V vocabulary, N characters of a text.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.dropout import without_symbols
from model.model_recipe import ModelRecipe
from model.stack import StackState
from model.tasks.step_model import StepModel
from model.tasks.task import NOT_COUNTED
from model.tied_head import TiedHead


class CharacterModel(StepModel):
    """Embedding, recurrent stack, linear head: of characters, words and all other symbols.

    Args:
        symbols: V, the size of the vocabulary.
        sizes: The recipe's `[model]` section.

    Raises:
        CellError: the recurrence cannot have these sizes, or a setting asks for something that it has not.
        TieError: embedding and head are to be one matrix, and differ in size.
    """

    def __init__(self, symbols: int, sizes: ModelRecipe) -> None:
        super().__init__(sizes)
        assert sizes.embedding is not None  # a recipe of symbols says so
        self.embedding = nn.Embedding(symbols, sizes.embedding)
        self.stack = self._new_stack(sizes.embedding)
        width = self.stack.width
        self.head = TiedHead(self.embedding, width) if sizes.tie else nn.Linear(width, symbols)

    def forward(self, tokens_BT: Tensor, state: StackState) -> tuple[Tensor, StackState]:
        """Read T symbols of every stream.

        Args:
            tokens_BT: int64 `[B, T]`, each below V.
            state: As `initial_state` makes it; not modified.

        Returns:
            Logits of the symbol that follows each one read, `[B, T, V]`, and the state after the last.
        """
        table_VE, dropout = self.embedding.weight, self.sizes.dropout
        if self.training and dropout.embedding:
            table_VE = without_symbols(table_VE, dropout.embedding)
        read_TBH, state = self._advance(functional.embedding(tokens_BT.T, table_VE), state)
        return self.head(read_TBH.transpose(0, 1)), state


def cross_entropy(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Mean nats per character, in float32 whatever the logits' type."""
    return functional.cross_entropy(logits_BTV.float().flatten(0, 1), targets_BT.flatten())


@torch.no_grad()
def evaluate(model: CharacterModel, tokens_N: Tensor, streams: int = 1, steps: int = 256) -> float:
    """Mean nats per character over a whole text, the state carried through.

    Every character but the first is predicted once. With one stream the figure is exact; more streams are
    faster and start cold more often, so that the figure is slightly too high.

    Args:
        model: Runs in evaluation mode and goes back to the mode it came in.
        tokens_N: int64 `[N]`, N at least 2.
        streams: Parts of equal length that are read side by side.
        steps: Characters of each stream read at once; no influence on the figure.
    """
    inputs_BL, targets_BL = _side_by_side(tokens_N, streams)
    state = model.stack.initial_state(streams)
    nats, training = 0.0, model.training
    model.eval()
    chunks = zip(torch.split(inputs_BL, steps, dim=1), torch.split(targets_BL, steps, dim=1), strict=True)
    for inputs_BT, targets_BT in chunks:
        logits_BTV, state = model(inputs_BT.to(state[0].hidden.device), state)
        nats += _sum(logits_BTV, targets_BT.to(logits_BTV.device))
    model.train(training)
    return nats / (len(tokens_N) - 1)


def bits(nats: float) -> float:
    """The same amount of information in bits."""
    return nats / math.log(2)


def _side_by_side(tokens_N: Tensor, streams: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets `[B, L]`: the text in B parts, the last one filled up with what is not counted."""
    length = math.ceil((len(tokens_N) - 1) / streams)
    missing = streams * length - (len(tokens_N) - 1)
    inputs = functional.pad(tokens_N[:-1], (0, missing))
    targets = functional.pad(tokens_N[1:], (0, missing), value=NOT_COUNTED)
    return inputs.view(streams, length), targets.view(streams, length)


def _sum(logits_BTV: Tensor, targets_BT: Tensor) -> float:
    logits, targets = logits_BTV.float().flatten(0, 1), targets_BT.flatten()
    return float(functional.cross_entropy(logits, targets, ignore_index=NOT_COUNTED, reduction="sum"))
