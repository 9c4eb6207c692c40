"""What a cell costs, as formulas: parameters, multiply-adds of a step, numbers that a sequence carries.

Sizes: n_x inputs, n_h units, n_p projection, n_m intermediate, n_k children of a node, n_t steps of context.

A multiply-add belongs to a matrix product and is two FLOP. What is done number by number, some ten operations a unit,
is not counted.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Cost:
    """Formulas in the sizes above, written as Python writes them."""

    parameters: str
    multiply_adds: str
    """Of one step of one sequence."""
    state: str
    """Numbers that one sequence carries from step to step."""
    square: bool = False
    """Only where n_x = n_h."""


COSTS: Final = {
    "lstm": Cost("4*n_h*(n_h + n_x + 1)", "4*n_h*(n_h + n_x)", "2*n_h"),
    "peephole": Cost("4*n_h*(n_h + n_x + 1) + 3*n_h", "4*n_h*(n_h + n_x)", "2*n_h"),
    "coupled": Cost("3*n_h*(n_h + n_x + 1)", "3*n_h*(n_h + n_x)", "2*n_h"),
    "projected": Cost("4*n_h*(n_p + n_x + 1) + n_p*n_h", "4*n_h*(n_p + n_x) + n_p*n_h", "n_p + n_h"),
    "highway-time": Cost("5*n_h*(n_h + n_x + 1)", "5*n_h*(n_h + n_x)", "2*n_h"),
    "highway-depth": Cost("5*n_h*(n_h + n_x + 1) + n_h*n_x", "5*n_h*(n_h + n_x) + n_h*n_x", "2*n_h"),
    "multiplicative-brief": Cost(
        "4*n_h*(n_h + n_x + 1) + n_h*n_h", "4*n_h*(n_h + n_x) + n_h*n_h", "2*n_h", square=True
    ),
    "multiplicative": Cost(
        "4*n_h*(n_m + n_x + 1) + n_m*(n_h + n_x)", "4*n_h*(n_m + n_x) + n_m*(n_h + n_x)", "2*n_h"
    ),
    "gru": Cost("3*n_h*(n_h + n_x + 1) + n_h", "3*n_h*(n_h + n_x)", "n_h"),
    "gru, reset before": Cost("3*n_h*(n_h + n_x + 1)", "3*n_h*(n_h + n_x)", "n_h"),
    "rnn": Cost("n_h*(n_h + n_x + 1)", "n_h*(n_h + n_x)", "n_h"),
    "child-sum, a node": Cost("4*n_h*(n_h + n_x + 1)", "4*n_h*n_x + (3 + n_k)*n_h*n_h", "2*n_h"),
}
"""By the name of the cell in `model.cells.CELLS`, and what of its options matters."""

TRANSFORMER: Final = Cost("12*n_h*n_h + 13*n_h", "12*n_h*n_h + 2*n_t*n_h", "2*n_t*n_h")
"""A layer of width n_h with a feed-forward part of 4 n_h, which keeps the keys and values of n_t steps.

Source: Vaswani et al. 2017; `model.cached_attention` is the layer that these formulas are held against.
"""


def count(formula: str, **sizes: int) -> int:
    """The value of a formula of this module for sizes such as `n_h=256`."""
    return int(
        eval(formula, {"__builtins__": {}}, sizes)
    )  # a formula of ours: written here, never read from outside
