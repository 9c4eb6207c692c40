"""One layer: a cell over time, and what acts on it there.

Axes: T time, B batch, I input, H hidden.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from model.cells import CELLS
from model.cells.gated import Gated
from model.checkpointing import Run, in_segments
from model.dropout import locked, mask, without_connections
from model.model_recipe import CellRecipe, DropoutRecipe, ZoneoutRecipe
from model.over_time import fused, has_kernel, unroll
from model.untied import untied
from model.zoneout import zoneout


class Conditions(NamedTuple):
    """What acts on every layer of a network."""

    dropout: DropoutRecipe = DropoutRecipe()
    zoneout: ZoneoutRecipe = ZoneoutRecipe()
    checkpointing: bool = False


def new_cell(
    recipe: CellRecipe, input_size: int, hidden_size: int, conditions: Conditions
) -> Gated[Any, Any]:
    """A cell as a recipe says.

    Raises:
        CellError: it cannot have these sizes, or the conditions ask for something that it has not.
    """
    cell = CELLS[recipe.kind](input_size, hidden_size, **recipe.model_dump(exclude={"kind"}))
    zoneout(cell, conditions.zoneout, training=False)
    return cell


def run_layer(
    cell: Gated[Any, Any],
    x_TBI: Tensor,
    state: Any,
    conditions: Conditions,
    *,
    layer: int,
    training: bool,
    lengths_B: Tensor | None = None,
) -> tuple[Tensor, Any]:
    """Advance every sequence by T steps, in the library's kernel where that gives the same.

    Args:
        cell: The recurrence.
        x_TBI: Inputs `[T, B, I]`, T at least 1.
        state: Where the sequences start; not modified.
        conditions: What acts on the cell.
        layer: Which one it is, counted from 0: other shares are dropped before the first than before the others.
        training: Dropout acts, and zoneout draws instead of taking its expectation.
        lengths_B: int64, the steps of each row; None: T. As `unroll` takes them.

    Returns:
        Outputs `[T, B, H]` and the state after the last step.

    Raises:
        CellError: zoneout is asked for of a part that the state has not.
    """
    zone = zoneout(cell, conditions.zoneout, training)
    mask_BH: Tensor | None = None
    if training:
        share = conditions.dropout.between if layer else conditions.dropout.input
        cell, x_TBI, mask_BH = _with_dropout(cell, x_TBI, state, conditions.dropout, share)
    exact = has_kernel(cell) and zone is None and mask_BH is None and lengths_B is None

    def run(segment_TBI: Tensor, carried: Any) -> tuple[Tensor, Any]:
        before, left_B = carried
        if exact:
            output, after = fused(cell, segment_TBI, before)
        else:
            output, after = unroll(cell, segment_TBI, before, mask_BH=mask_BH, zone=zone, lengths_B=left_B)
        return output, (after, None if left_B is None else left_B - len(segment_TBI))

    way = in_segments if conditions.checkpointing and torch.is_grad_enabled() else _at_once
    output, (after, _) = way(run, x_TBI, (state, lengths_B))
    return output, after


def _at_once(run: Run, x_TBI: Tensor, state: Any) -> tuple[Tensor, Any]:
    return run(x_TBI, state)


def _with_dropout(
    cell: Gated[Any, Any], x_TBI: Tensor, state: Any, dropout: DropoutRecipe, input_share: float
) -> tuple[Gated[Any, Any], Tensor, Tensor | None]:
    """The cell and the inputs without what is dropped, and the mask on the hidden state that the gates see."""
    if dropout.weight:
        cell = without_connections(cell, dropout.weight)
    if dropout.untied:
        batch = x_TBI.shape[1]
        return untied(cell, batch, input_share=input_share, hidden_share=dropout.hidden), x_TBI, None
    if input_share:
        x_TBI = locked(x_TBI, input_share) if dropout.locked else functional.dropout(x_TBI, input_share)
    mask_BH = mask(dropout.hidden, state.hidden, *state.hidden.shape) if dropout.hidden else None
    return cell, x_TBI, mask_BH
