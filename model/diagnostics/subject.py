"""What is looked at: a model, and sequences that it did not learn from where there are such.

Axes: T time, B batch (sequences), N tokens of a text.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from carousel.errors import CarouselError
from model.checkpoint import Checkpoint
from model.data.corpus import Corpus
from model.recipe import Recipe
from model.stack import Stack
from model.tasks.characters import cross_entropy
from model.tasks.step_model import StepModel
from model.tasks.task import Batch
from model.tasks.tasks import load_data, task_of

_STEPS, _WARM_UP = 128, 64
"""Of a passage of text."""
_LEAST, _MOST = 4, 32
_VALUES = 2_000_000
"""Of one gate in one layer, at most: what bounds time and memory."""


class DiagnosisError(CarouselError):
    """There is nothing to look at."""


@dataclass(frozen=True)
class Subject:
    """A model in double precision and evaluation mode, and what it is run on."""

    name: str
    model: StepModel
    batch: Batch
    state: Any
    """Where the sequences start."""
    loss: Callable[[Tensor, Tensor], Tensor]
    """From outputs and targets to a mean."""
    data: str
    """What it is run on, in words."""

    @property
    def stack(self) -> Stack:
        """The layers."""
        return self.model.stack

    def outputs(self) -> Tensor:
        """Run the model, `[B, T, ...]`."""
        outputs, _ = self.model(*self.batch.inputs, self.state)
        assert isinstance(outputs, Tensor)
        return outputs

    def mean_loss(self, outputs: Tensor) -> Tensor:
        """Over everything that counts, a scalar."""
        return self.loss(outputs, self.batch.targets)

    def last_loss(self, outputs: Tensor) -> tuple[int, Tensor]:
        """The last step at which anything counts, and the loss there, a scalar."""
        for step in reversed(range(outputs.shape[1])):
            loss = self.loss(outputs[:, step : step + 1], self.batch.targets[:, step : step + 1])
            if loss.isfinite():
                return step, loss
        raise DiagnosisError(f"{self.name}: no step has a loss")


def subject_of(checkpoint: Checkpoint, source: str | None, name: str) -> Subject:
    """A trained model on data of its task: a text's held-out part, else what an update after the last would learn from.

    Args:
        checkpoint: Its model is made double.
        source: What data; None: what it was trained on, if that can be found again.
        name: What to call it.

    Raises:
        DiagnosisError: the model does not advance a step at a time, or the data is not of its kind.
        DataError: there is no such data, or too little of it.
        RecipeError: the task draws its own data and takes no other.
    """
    if not isinstance(checkpoint.model, StepModel):
        raise DiagnosisError(
            f"{name}: expected a model that advances a step at a time, came {checkpoint.task}"
        )
    model = checkpoint.model.double().eval()
    recipe = Recipe.from_document(checkpoint.recipe)
    data = load_data(recipe if source is None else recipe.with_source(source))
    where = "data as in training" if data.sha256 == checkpoint.data_sha256 else "other data than in training"
    if isinstance(data, Corpus):
        batch, state = passages(model, held_out(checkpoint, data))
        told = f"{len(batch.targets)} held-out passages of {batch.targets.shape[1]} symbols, {where}"
        return Subject(name, model, batch, state, cross_entropy, told)
    if data.names != checkpoint.vocabulary:
        raise DiagnosisError(
            f"{source}: expected {', '.join(checkpoint.vocabulary)}, came {', '.join(data.names)}"
        )
    task = task_of(recipe, data)
    batch = _few(model, task.batch(recipe.training.updates))
    told = f"{len(batch.targets)} sequences of {batch.targets.shape[1]} steps, as a further update would read them, {where}"
    return Subject(name, model, batch, model.initial_state(len(batch.targets)), task.loss, told)


def passages(model: StepModel, tokens_N: Tensor) -> tuple[Batch, Any]:
    """Some passages of a text, and the states of a model that has read what stands before them.

    Raises:
        DiagnosisError: the text is shorter than one passage.
    """
    length = _WARM_UP + _STEPS + 1
    if len(tokens_N) < length:
        raise DiagnosisError(f"expected a held-out part of {length} symbols or more, came {len(tokens_N)}")
    starts_B = torch.linspace(0, len(tokens_N) - length, _rows(model, _STEPS)).long()
    tokens_BL = tokens_N[starts_B[:, None] + torch.arange(length)]
    with torch.no_grad():
        _, warm = model(tokens_BL[:, :_WARM_UP], model.initial_state(len(tokens_BL)))
    return Batch((tokens_BL[:, _WARM_UP:-1],), tokens_BL[:, _WARM_UP + 1 :]), warm


def held_out(checkpoint: Checkpoint, corpus: Corpus) -> Tensor:
    """The held-out text of a corpus in the symbols of a checkpoint, int64 `[N]`."""
    numbers = {symbol: number for number, symbol in enumerate(checkpoint.vocabulary)}
    table = torch.tensor([numbers.get(symbol, checkpoint.unknown) for symbol in corpus.names])
    return table[corpus.validation]


def _few(model: StepModel, batch: Batch) -> Batch:
    rows = _rows(model, batch.targets.shape[1])
    inputs = (tensor[:rows] for tensor in batch.inputs)
    return Batch(tuple(x.double() if x.is_floating_point() else x for x in inputs), batch.targets[:rows])


def _rows(model: StepModel, steps: int) -> int:
    return max(_LEAST, min(_MOST, _VALUES // (steps * model.sizes.hidden)))
