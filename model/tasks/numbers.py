"""A model of numbers: it reads some in each step and gives some.

Axes: T time, B batch, I inputs, O outputs, H hidden, n inputs that are read as changes.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from model.model_recipe import ModelRecipe
from model.stack import StackState
from model.tasks.step_model import StepModel


class Before(NamedTuple):
    """What a model that reads changes has to know of the step before."""

    input: Tensor
    """Scaled inputs `[B, n]`."""
    seen: Tensor
    """`[B, 1]`: 1 where there was a step before, 0 at the beginning."""


class NumberModel(StepModel):
    """Recurrent stack and linear head between two scales: what goes in and comes out are the numbers as they are.

        x = (input - center_in) / scale_in,   output = center_out + scale_out (W h + b + x[follows])

    A series seldom stays where it was when a model learnt from it. A model that reads how its inputs change, and says
    how its outputs will differ from them, never sees that. The state then also has the inputs of the step before.

    The scales are part of the model: its graph needs no others, and nobody can mix them up.

    Args:
        inputs: I.
        outputs: O.
        sizes: The recipe's `[model]` section.
        follows: The input that each output goes on from, which the head then only corrects; nothing: none does.
        changes: The first so many inputs reach the stack as changes since the step before; 0 at the first step.

    Raises:
        CellError: the recurrence cannot have these sizes, or a setting asks for something that it has not.
    """

    center_in: Tensor
    scale_in: Tensor
    center_out: Tensor
    scale_out: Tensor

    def __init__(
        self, inputs: int, outputs: int, sizes: ModelRecipe, follows: tuple[int, ...] = (), changes: int = 0
    ) -> None:
        super().__init__(sizes)
        self.follows, self.changes = follows, changes
        self.stack = self._new_stack(inputs)
        self.head = nn.Linear(self.stack.width, outputs)
        for name, size in (("in", inputs), ("out", outputs)):
            self.register_buffer(f"center_{name}", torch.zeros(size))
            self.register_buffer(f"scale_{name}", torch.ones(size))

    def initial_state(self, batch: int) -> StackState:
        """The state of `batch` sequences that have made no step; `Before` comes last, where changes are read."""
        state = super().initial_state(batch)
        if not self.changes:
            return state
        return (
            *state,
            Before(self.center_in.new_zeros(batch, self.changes), self.center_in.new_zeros(batch, 1)),
        )

    def forward(self, input_BTI: Tensor, state: StackState) -> tuple[Tensor, StackState]:
        """Read T steps of every row.

        Args:
            input_BTI: Numbers `[B, T, I]`.
            state: As `initial_state` makes it; not modified.

        Returns:
            Numbers `[B, T, O]`, and the state after the last step.
        """
        x_BTI = (input_BTI - self.center_in) / self.scale_in
        z_BTI, after = self._changed(x_BTI, state[-1])
        read_TBH, state = self._advance(z_BTI.transpose(0, 1), state[: self.sizes.layers])
        y_BTO = self.head(read_TBH.transpose(0, 1)).to(x_BTI.dtype)
        if self.follows:
            y_BTO = y_BTO + x_BTI[..., list(self.follows)]
        return self.center_out + self.scale_out * y_BTO, (*state, *after)

    def _changed(self, x_BTI: Tensor, before: Any) -> tuple[Tensor, tuple[Before, ...]]:
        """What the stack reads, and what the next step has to know."""
        if not self.changes:
            return x_BTI, ()
        now_BTn, rest = x_BTI[..., : self.changes], x_BTI[..., self.changes :]
        first_Bn = before.seen * before.input + (1 - before.seen) * now_BTn[:, 0]
        earlier_BTn = torch.cat([first_Bn.unsqueeze(1), now_BTn[:, :-1]], dim=1)
        after = Before(now_BTn[:, -1], torch.ones_like(before.seen))
        return torch.cat([now_BTn - earlier_BTn, rest], dim=-1), (after,)
