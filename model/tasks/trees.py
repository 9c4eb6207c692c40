"""A Tree-LSTM with an embedding below it and a linear head above its roots.

Axes: B batch (trees), N nodes, K children, V symbols, E embedding, H hidden, O outputs.
"""

from typing import Any

from torch import Tensor, nn

from model.cells.child_sum import ChildSumLSTM
from model.cells.gated import CellError
from model.initialise import initialise
from model.model_recipe import ModelRecipe, PlainCell
from model.tasks.task import TaskModel
from model.tree import Forest, over_forest

NO_NODE = -1
"""Token and child where a tree has fewer than others."""


class TreeModel(TaskModel):
    """One answer for a whole tree.

    Args:
        symbols: V.
        outputs: O.
        sizes: The recipe's `[model]` section: one layer, and nothing that is for sequences.

    Raises:
        CellError: something else is asked for.

    Source: child-sum Tree-LSTM, Tai, Socher & Manning 2015.
    """

    def __init__(self, symbols: int, outputs: int, sizes: ModelRecipe) -> None:
        super().__init__()
        plain = ModelRecipe(
            embedding=sizes.embedding, hidden=sizes.hidden, layers=1, initialise=sizes.initialise
        )
        if sizes != plain or sizes.embedding is None or sizes.cell != PlainCell(kind="lstm"):
            raise CellError(
                "trees: expected one layer of plain LSTM, and only embedding, hidden and initialise"
            )
        self.embedding = nn.Embedding(symbols, sizes.embedding)
        self.cell = ChildSumLSTM(sizes.embedding, sizes.hidden)
        initialise(self.cell, sizes.initialise)
        self.head = nn.Linear(sizes.hidden, outputs)

    def forward(
        self, tokens_BN: Tensor, children_BNK: Tensor, state: tuple[Any, ...]
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """Read whole trees.

        Args:
            tokens_BN: int64, children before their parents; `NO_NODE` fills up.
            children_BNK: int64, of each node in its own tree; `NO_NODE` fills up.
            state: None is needed: an empty tuple.

        Returns:
            `[B, O]` of each root, which is the last node of its tree; and the empty state.
        """
        real_BN = tokens_BN != NO_NODE
        starts_B = real_BN.sum(dim=1).cumsum(dim=0) - real_BN.sum(dim=1)
        shifted_BNK = children_BNK + starts_B[:, None, None] * (children_BNK != NO_NODE)
        forest = Forest(shifted_BNK[real_BN])
        states = over_forest(self.cell, self.embedding(tokens_BN[real_BN]), forest)
        return self.head(states.hidden[forest.roots]), state
