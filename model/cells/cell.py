"""What every cell has in common: a step is three small pieces, put together here and nowhere else.

Axes: B batch, I input, H what the cell hands on (its `hidden`), P projected input.
"""

from abc import ABC, abstractmethod
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor, nn


class HasHidden(Protocol):
    """A state: a named tuple of `[B, n]` tensors, among them the hidden state that the next step's gates see."""

    @property
    def hidden(self) -> Tensor:
        """What the next step sees, `[B, H]`."""
        ...

    def _asdict(self) -> dict[str, Any]: ...


State = TypeVar("State", bound=HasHidden)
Gates = TypeVar("Gates")


class Cell(nn.Module, ABC, Generic[State, Gates]):
    """A recurrence over time: `inputs`, `gates` and `update` are its equations.

    The pieces are apart because what surrounds a cell acts between them: inputs are projected for all time steps at
    once, a recurrent dropout mask acts on the hidden state that the gates see and not on the one that is carried,
    and diagnostics read the gates.

    Args:
        input_size: I.
        hidden_size: H, the width of `hidden` and of the output.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """The state of `batch` sequences that have made no step: zeros, typed and placed as the weights."""

    @abstractmethod
    def inputs(self, x: Tensor) -> Tensor:
        """What depends on the input alone, for one step or for all time steps at once: `[..., I]` to `[..., P]`."""

    @abstractmethod
    def gates(self, projected_t: Tensor, hidden: Tensor, state: State) -> Gates:
        """The gates of one step.

        Args:
            projected_t: `inputs` of this step, `[B, P]`.
            hidden: The hidden state that the gates see, `[B, H]`.
            state: The state before the step; not modified.
        """

    @abstractmethod
    def update(self, gates: Gates, state: State) -> tuple[Tensor, State]:
        """The output `[B, H]` (the new hidden state) and the next state."""

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """Advance every sequence by one time step.

        Args:
            x_t: `[B, I]`.
            state: Not modified.

        Returns:
            Output `[B, H]` and the next state.
        """
        return self.update(self.gates(self.inputs(x_t), state.hidden, state), state)
