"""Trees: a child-sum cell over all nodes of a forest, batched by depth.

Axes: N nodes, K children, I input, H hidden.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from carousel.errors import CarouselError
from model.cells.child_sum import ChildSumLSTM
from model.cells.lstm import LSTMState


class TreeError(CarouselError):
    """The children do not make trees."""


class Level(NamedTuple):
    """The nodes of one depth. Their children are the whole level below, one deeper, and nothing else."""

    leaves: Tensor
    """Nodes without children `[l]`."""
    inner: Tensor
    """Nodes with children `[n]`."""
    children: Tensor
    """Of the inner nodes, `[n, K]`: places in the level below, leaves before inner nodes, counted from 1; 0: none."""


class Forest:
    """Trees, their nodes numbered so that children come before their parents.

    Args:
        children_NK: int64 `[N, K]`, the children of each node in any column; -1 where there are fewer than K. A
            node that is nobody's child is a root.

    Attributes:
        roots: The roots `[R]`, ascending.
        levels: All nodes, deepest first.

    Raises:
        TreeError: there is no node, or a child that does not come before its one parent.
    """

    def __init__(self, children_NK: Tensor) -> None:
        parents = _parents(children_NK)
        self.roots = (parents < 0).nonzero().squeeze(1)
        self.levels = list[Level]()
        depths, has_children = _depths(parents), (children_NK >= 0).any(dim=1)
        places = torch.zeros_like(parents)
        for depth in range(int(depths.max()), -1, -1):
            leaves = ((depths == depth) & ~has_children).nonzero().squeeze(1)
            inner = ((depths == depth) & has_children).nonzero().squeeze(1)
            children = children_NK[inner]
            self.levels.append(Level(leaves, inner, torch.where(children < 0, 0, places[children])))
            nodes = torch.cat([leaves, inner])
            places[nodes] = torch.arange(1, len(nodes) + 1, device=nodes.device)


def over_forest(cell: ChildSumLSTM, x_NI: Tensor, forest: Forest) -> LSTMState:
    """Run a cell from the leaves to the roots, a depth at a time.

    Args:
        cell: The recurrence.
        x_NI: The inputs of all nodes `[N, I]`.
        forest: How they hang together; on the device of the inputs.

    Returns:
        The states of all nodes, `[N, H]` each, in the order of the inputs.
    """
    projected_NP = cell.inputs(x_NI)
    # Leaves wait for nobody: those of all depths are one batch.
    leaves = torch.cat([level.leaves for level in forest.levels])
    grown = _grow(cell, projected_NP[leaves], cell.initial_state(len(leaves)))
    counts = [len(level.leaves) for level in forest.levels]
    nobody = LSTMState(*(segment.new_zeros(1, cell.hidden_size) for segment in grown))
    below, states = nobody, list[LSTMState]()
    for level, *of_leaves in zip(
        forest.levels, *(torch.split(segment, counts) for segment in grown), strict=True
    ):
        children = LSTMState(*(segment[level.children] for segment in below))
        inner = _grow(cell, projected_NP[level.inner], children)
        states.append(_join(LSTMState(*of_leaves), inner))
        below = _join(nobody, states[-1])
    order = torch.cat([nodes for level in forest.levels for nodes in (level.leaves, level.inner)])
    return LSTMState(*(segment[order.argsort()] for segment in _join(*states)))


def _grow(cell: ChildSumLSTM, projected_NP: Tensor, children: LSTMState) -> LSTMState:
    return cell.update(cell.gates(projected_NP, children.hidden, children), children)[1]


def _join(*states: LSTMState) -> LSTMState:
    return LSTMState(*(torch.cat(segments) for segments in zip(*states, strict=True)))


def _parents(children_NK: Tensor) -> Tensor:
    """The parent of each node `[N]`, -1 for a root."""
    if not len(children_NK):
        raise TreeError("expected at least one node, got none")
    parents, columns = (children_NK >= 0).nonzero(as_tuple=True)
    children = children_NK[parents, columns]
    if (late := children >= parents).any():
        child, parent = int(children[late][0]), int(parents[late][0])
        raise TreeError(f"expected children before their parents, got {child} as a child of {parent}")
    claims = children.bincount(minlength=len(children_NK))
    if (claims > 1).any():
        raise TreeError(f"expected one parent a node, got {int(claims.max())} for {int(claims.argmax())}")
    return children_NK.new_full((len(children_NK),), -1).index_put((children,), parents)


def _depths(parents_N: Tensor) -> Tensor:
    """How far each node is from its root `[N]`."""
    depths, ancestors = torch.zeros_like(parents_N), parents_N
    while (further := ancestors >= 0).any():
        depths += further
        ancestors = torch.where(further, parents_N[ancestors], -1)
    return depths
