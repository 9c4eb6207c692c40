"""What the kinds of training differ in, and what they have in common.

Axes: B batch (streams).
"""

from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

NOT_COUNTED = -100
"""Target of a token that nobody is asked for; of numbers it is not-a-number."""


class Batch(NamedTuple):
    """What one update learns from; the first axis is B in all of it, so that it can be shared out."""

    inputs: tuple[Tensor, ...]
    """What the model is called with before the state."""
    targets: Tensor
    """What its outputs are held against."""


class TaskModel(nn.Module):
    """A model of some task: called with a batch's inputs and a state, gives outputs and the state after them."""

    def __init__(self) -> None:
        super().__init__()
        self.penalty: Tensor | float = 0.0
        """What the activations of the last call add to the loss; zero in evaluation."""

    def initial_state(self, batch: int) -> tuple[Any, ...]:  # noqa: ARG002 - of models that have one
        """The state of sequences that have made no step; nothing for a model that needs all of its input at once."""
        return ()


class Data(Protocol):
    """What a task was given to learn from."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the positions of inputs and outputs mean: the symbols of a text, the columns of a table."""

    @property
    def sha256(self) -> str:
        """Of everything that was read."""


class Task(Protocol):
    """One kind of training, with its data: where batches come from, what a mistake costs, how well a model does."""

    carries: bool
    """Whether each batch goes on where the one before ended, and the state with it."""

    @property
    def summary(self) -> str:
        """How much there is to learn from, and how much is held out."""

    def new_model(self) -> TaskModel:
        """A model with fresh weights."""

    def batch(self, number: int) -> Batch:
        """What update `number` learns from, always the same."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over all that counts, a scalar."""

    def evaluate(self, model: Any, *, exactly: bool = False) -> float:
        """The loss on what is held out; `exactly` may take longer."""

    def figures(self, loss: float) -> dict[str, float]:
        """A held-out loss as people read it, `validation_...` first."""

    def test(self, model: Any) -> dict[str, float]:
        """The figures on what was never looked at before."""

    def said(self, figures: dict[str, float]) -> str:
        """The figure to tell, in words."""
