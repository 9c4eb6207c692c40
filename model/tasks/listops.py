"""ListOps: what a nested expression such as [MAX 2 [MIN 4 7] 0] comes to, as a tree or as a text.

Axes: T tokens of a text, N nodes of a tree, K children, B batch.

Source: Nangia & Bowman 2018; operators MAX, MIN, MED (the lower median) and SM (the sum modulo 10). Drawn here by rules of
our own: two to five arguments, a quarter of which are expressions again, and no text of more tokens than `steps`.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model.recipe import ListOpsRecipe
from model.tasks.characters import CharacterModel
from model.tasks.drawn import Drawn
from model.tasks.task import NOT_COUNTED, Batch, TaskModel
from model.tasks.trees import NO_NODE, TreeModel

DIGITS = tuple("0123456789")
NAMES = (*DIGITS, "[MAX", "[MIN", "[MED", "[SM", "]")
_MAX, _MIN, _MED, _SUM, _END = range(len(DIGITS), len(NAMES))
MOST_ARGUMENTS = 5
_NESTED = 0.25


class Expression(NamedTuple):
    """One expression."""

    text: list[int]
    """Its tokens."""
    nodes: list[int]
    """The token of each node, children before their parents."""
    children: list[list[int]]
    """Of each node."""
    value: int


class ListOps(Drawn):
    """Name the digit: of a tree at its root, of a text at its last bracket."""

    _recipe: ListOpsRecipe

    def new_model(self) -> TaskModel:
        """A model with fresh weights."""
        return new_reader(self._recipe, self._names)

    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """Trees: tokens `[B, N]`, children `[B, N, K]`, targets `[B]`. Texts: tokens and targets `[B, T]`."""
        made = [expression(rng, self._recipe.training.steps) for _ in range(count)]
        return _trees(made) if self._recipe.data.read == "trees" else _texts(made)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Nats an expression."""
        logits, wanted = outputs.float().flatten(0, -2), targets.flatten()
        return functional.cross_entropy(logits, wanted, ignore_index=NOT_COUNTED)

    def figures(self, loss: float) -> dict[str, float]:
        """Nats an expression."""
        return {"validation_nats": loss}

    def test(self, model: Any) -> dict[str, float]:
        """The share of expressions whose digit is right."""
        right = [
            (outputs.argmax(dim=-1) == batch.targets)[batch.targets != NOT_COUNTED]
            for batch, outputs in self.answered(model, "test")
        ]
        return {"test_accuracy": float(torch.cat(right).float().mean())}

    def said(self, figures: dict[str, float]) -> str:
        """Nats on what is held out."""
        return f"{figures['validation_nats']:.4f} nats a held-out expression"


def new_reader(recipe: ListOpsRecipe, names: tuple[str, ...]) -> TaskModel:
    """A model with fresh weights.

    Args:
        recipe: Of the task `listops`.
        names: All tokens, the digits first.
    """
    if recipe.data.read == "texts":
        return CharacterModel(len(names), recipe.model)
    return TreeModel(len(names), len(DIGITS), recipe.model)


def expression(rng: np.random.Generator, longest: int) -> Expression:
    """Draw one that has an operator and at most so many tokens."""
    while True:
        made = Expression([], [], [], 0)
        value = _draw(rng, made, nested=True, longest=longest)
        if len(made.text) <= longest:
            return made._replace(value=value)


def _draw(rng: np.random.Generator, made: Expression, *, nested: bool, longest: int) -> int:
    """Add an expression or a digit, and return its value; what grows too long is not drawn to its end."""
    if not nested or len(made.text) > longest:
        digit = int(rng.integers(len(DIGITS)))
        made.text.append(digit)
        made.nodes.append(digit)
        made.children.append([])
        return digit
    operator = int(rng.integers(_MAX, _END))
    made.text.append(operator)
    values, places = [], []
    for _ in range(rng.integers(2, MOST_ARGUMENTS + 1)):
        values.append(_draw(rng, made, nested=rng.random() < _NESTED, longest=longest))
        places.append(len(made.nodes) - 1)
    made.text.append(_END)
    made.nodes.append(operator)
    made.children.append(places)
    return value_of(operator, values)


def value_of(operator: int, values: list[int]) -> int:
    """What an operator makes of its arguments."""
    if operator == _MAX:
        return max(values)
    if operator == _MIN:
        return min(values)
    if operator == _MED:
        return sorted(values)[(len(values) - 1) // 2]
    return sum(values) % 10


def _texts(made: list[Expression]) -> Batch:
    longest = max(len(one.text) for one in made)
    tokens_BT = torch.full((len(made), longest), _END)
    targets_BT = torch.full((len(made), longest), NOT_COUNTED)
    for row, one in enumerate(made):
        tokens_BT[row, : len(one.text)] = torch.tensor(one.text)
        targets_BT[row, len(one.text) - 1] = one.value
    return Batch((tokens_BT,), targets_BT)


def _trees(made: list[Expression]) -> Batch:
    most = max(len(one.nodes) for one in made)
    tokens_BN = torch.full((len(made), most), NO_NODE)
    children_BNK = torch.full((len(made), most, MOST_ARGUMENTS), NO_NODE)
    for row, one in enumerate(made):
        tokens_BN[row, : len(one.nodes)] = torch.tensor(one.nodes)
        for node, children in enumerate(one.children):
            children_BNK[row, node, : len(children)] = torch.tensor(children, dtype=torch.int64)
    return Batch((tokens_BN, children_BNK), torch.tensor([one.value for one in made]))
