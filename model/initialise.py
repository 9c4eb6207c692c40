"""Where the weights of a cell start: what a recipe says beyond what a new cell has (see `Gated`).

A block at a time, a gate each: the fused matrix would give the wrong fan, and no orthogonal block. Axes: U units, n what
a block reads.
"""

from typing import Any

import torch
from torch import Tensor, nn

from model.cells.gated import CellError, Gated
from model.model_recipe import InitialiseRecipe
from model.substitute import blocks, recurrent_weights

_KEEPS = ("forget", "update")
"""The gates that tell what a cell keeps of its state; a cell has one of them or none."""


@torch.no_grad()
def initialise(cell: Gated[Any, Any], recipe: InitialiseRecipe) -> None:
    """Draw the weights of a new cell anew, as far as a recipe asks for it.

    Args:
        cell: One that was just made: Xavier blocks on the input, orthogonal ones on the hidden state, biases zero but
            for the forget gate's, which is 1. Changed in place.
        recipe: What to do otherwise.

    Raises:
        CellError: there is no gate whose bias is asked for.

    Source: Glorot & Bengio 2010 (Xavier: uniform, variance 2 / (rows + columns)); Saxe, McClelland & Ganguli 2014
    (orthogonal); Gers, Schmidhuber & Cummins 2000, Jozefowicz, Zaremba & Sutskever 2015 (forget bias); Tallec &
    Ollivier 2018 (chrono). The small candidate, N(0, 1 / hidden), is the brief's; no paper is known to have it.
    """
    for name, weight in recurrent_weights(cell).items():
        for block in weight.chunk(blocks(cell, name)):
            if recipe.recurrent == "xavier":
                nn.init.xavier_uniform_(block)
            block.mul_(recipe.scale)
    if recipe.small_candidate:
        for weight in (cell.weight_x, cell.weight_h):
            nn.init.normal_(cell.blocks(weight)["candidate"], std=cell.hidden_size**-0.5)
    if recipe.forget_bias is not None:
        _keeping(cell, "forget_bias").fill_(recipe.forget_bias)
    if recipe.chrono is not None:
        _chrono(cell, recipe.chrono)


def _chrono(cell: Gated[Any, Any], longest: int) -> None:
    """b_f = log(u), u ~ U[1, T_max - 1], and b_i = -b_f: each unit forgets over about u + 1 steps."""
    keeping = _keeping(cell, "chrono").uniform_(1, longest - 1).log_()
    if "input" in cell.gate_names:
        torch.neg(keeping, out=cell.blocks(cell.bias)["input"])


def _keeping(cell: Gated[Any, Any], setting: str) -> Tensor:
    biases = cell.blocks(cell.bias)
    for name in _KEEPS:
        if name in biases:
            return biases[name]
    raise CellError(f"initialise.{setting}: {type(cell).__name__} has no gate that forgets")
