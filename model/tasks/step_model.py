"""What all models have in common that advance a step at a time: a recurrent stack and a linear head above it.

Axes: T time, B batch, I input, H hidden, O outputs.
"""

from torch import Tensor, nn
from torch.nn import functional

from model.activation_penalties import ar, tar
from model.dropout import locked
from model.initialise import initialise
from model.layer import Conditions
from model.model_recipe import ModelRecipe
from model.stack import Stack, StackState
from model.tasks.task import TaskModel
from model.tied_head import TiedHead


class StepModel(TaskModel):
    """The base: a task says what the stack reads and what the head is.

    Args:
        sizes: The recipe's `[model]` section.
    """

    stack: Stack
    head: TiedHead | nn.Linear

    def __init__(self, sizes: ModelRecipe) -> None:
        super().__init__()
        self.sizes = sizes

    def initial_state(self, batch: int) -> StackState:
        """The state of `batch` sequences that have made no step."""
        return self.stack.initial_state(batch)

    def _new_stack(self, input_size: int) -> Stack:
        """A stack that reads I numbers a step.

        Raises:
            CellError: the recurrence cannot have these sizes, or a setting asks for something that it has not.
        """
        sizes = self.sizes
        conditions = Conditions(sizes.dropout, sizes.zoneout, sizes.checkpointing)
        stack = Stack(
            input_size,
            sizes.hidden,
            sizes.layers,
            cell=sizes.cell,
            share=sizes.share,
            conditions=conditions,
        )
        for cell in dict.fromkeys(stack.by_layer()):  # a shared one is one
            initialise(cell, sizes.initialise)
        return stack

    def _advance(self, x_TBI: Tensor, state: StackState) -> tuple[Tensor, StackState]:
        """What the head reads `[T, B, H]`, and the state after the last step; `penalty` is set on the way."""
        dropout = self.sizes.dropout
        y_TBH, state = self.stack(x_TBI, state)
        read_TBH = y_TBH
        if self.training and dropout.output:
            drop = locked if dropout.locked or dropout.untied else functional.dropout
            read_TBH = drop(y_TBH, dropout.output)
        self.penalty = self._penalty(read_TBH, y_TBH) if self.training else 0.0
        return read_TBH, state

    def _penalty(self, read_TBH: Tensor, y_TBH: Tensor) -> Tensor | float:
        alpha, beta = self.sizes.activation_penalty, self.sizes.temporal_penalty
        return (ar(read_TBH, alpha) if alpha else 0.0) + (tar(y_TBH, beta) if beta else 0.0)
