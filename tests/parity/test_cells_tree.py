"""The child-sum cell over trees: against an LSTM, against the published equations, and by itself."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import gradcheck
from torch.testing import assert_close

from model.cells.child_sum import ChildSumLSTM
from model.cells.lstm import LSTM
from model.over_time import unroll
from model.tree import Forest, TreeError, over_forest
from tests.cells import HIDDEN, INPUT, drawn, random_inputs

EXACT = {"rtol": 1e-10, "atol": 1e-10}

# 6 has the children 2, 3 and 5, of which 5 has 0 and 4, of which 4 has 1; 7 stands alone; 9 has 8.
CHILDREN = [[], [], [], [], [1], [0, 4], [2, 3, 5], [], [], [8]]


def padded(children: Sequence[Sequence[int]]) -> Tensor:
    width = max(map(len, children))
    return torch.tensor([[*row, *(width - len(row)) * [-1]] for row in children]).long()


@pytest.fixture
def cell() -> ChildSumLSTM:
    torch.manual_seed(0)
    return drawn(ChildSumLSTM(INPUT, HIDDEN).double())


def as_lstm(cell: ChildSumLSTM) -> LSTM:
    lstm = LSTM(INPUT, HIDDEN).double()
    with torch.no_grad():
        for name, parameter in lstm.named_parameters():
            ours = cell.blocks(getattr(cell, name))
            parameter.copy_(torch.cat([ours[gate] for gate in LSTM.gate_names]))
    return lstm


def test_a_chain_of_single_children_is_the_lstm_with_its_gradients(cell: ChildSumLSTM) -> None:
    lstm = as_lstm(cell)
    x = random_inputs(lstm, 7, 1)
    found = over_forest(cell, x[:, 0], Forest(padded([[], *([n] for n in range(6))])))
    output, last = unroll(lstm, x, lstm.initial_state(1))
    assert_close(found.hidden, output[:, 0], **EXACT)
    assert_close(found.cell[-1:], last.cell, **EXACT)

    slopes = torch.autograd.grad(found.hidden.square().sum(), [x, *cell.parameters()])
    expected = torch.autograd.grad(output.square().sum(), [x, *lstm.parameters()])
    assert_close(slopes[0], expected[0], **EXACT)
    for ours, theirs in zip(slopes[1:], expected[1:], strict=True):
        in_order = [cell.blocks(ours)[gate] for gate in LSTM.gate_names]
        assert_close(torch.cat(in_order), theirs, **EXACT)


def published(cell: ChildSumLSTM, x: NDArray[np.float64], children: Sequence[int], done: list) -> tuple:
    """Tai et al. 2015, equations 2 to 8, for one node."""
    W, U, b = (
        {gate: block.detach().numpy() for gate, block in cell.blocks(parameter).items()}
        for parameter in (cell.weight_x, cell.weight_h, cell.bias)
    )

    def sigma(z: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1 / (1 + np.exp(-z))

    h_tilde = sum((done[k][0] for k in children), start=np.zeros(HIDDEN))
    i, o = (sigma(W[gate] @ x + U[gate] @ h_tilde + b[gate]) for gate in ("input", "output"))
    u = np.tanh(W["candidate"] @ x + U["candidate"] @ h_tilde + b["candidate"])
    c = i * u
    for k in children:
        f_jk = sigma(W["forget"] @ x + U["forget"] @ done[k][0] + b["forget"])
        c = c + f_jk * done[k][1]
    return o * np.tanh(c), c


def test_a_forest_is_the_published_equations_node_by_node(cell: ChildSumLSTM) -> None:
    x = random_inputs(cell, len(CHILDREN))
    found = over_forest(cell, x, Forest(padded(CHILDREN)))
    done: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for x_n, children in zip(x.detach().numpy(), CHILDREN, strict=True):
        done.append(published(cell, x_n, children, done))
    for segment, expected in zip(found, zip(*done, strict=True), strict=True):
        assert_close(segment, torch.from_numpy(np.stack(expected)), **EXACT)


def test_all_gradients_over_a_forest_are_slopes(cell: ChildSumLSTM) -> None:
    forest, x = Forest(padded(CHILDREN)), random_inputs(cell, len(CHILDREN))
    assert gradcheck(lambda x, *_: tuple(over_forest(cell, x, forest)), (x, *cell.parameters()))


def test_a_leaf_is_a_node_without_children(cell: ChildSumLSTM) -> None:
    x = random_inputs(cell, 2)
    output, leaf = cell.step(x, cell.initial_state(2))
    expected = over_forest(cell, x, Forest(torch.empty(2, 0, dtype=torch.long)))
    assert_close(leaf, expected, **EXACT)
    assert output is leaf.hidden


def test_a_tree_is_the_same_alone_and_in_a_forest(cell: ChildSumLSTM) -> None:
    x = random_inputs(cell, 20)
    twice = [*CHILDREN, *([child + 10 for child in row] for row in CHILDREN)]
    together = over_forest(cell, x, Forest(padded(twice)))
    alone = over_forest(cell, x[10:], Forest(padded(CHILDREN)))
    assert_close(tuple(segment[10:] for segment in together), tuple(alone), **EXACT)


def test_the_order_of_children_and_their_columns_mean_nothing(cell: ChildSumLSTM) -> None:
    x, children = random_inputs(cell, len(CHILDREN)), padded(CHILDREN)
    found = over_forest(cell, x, Forest(children.flip(1)))
    assert_close(found, over_forest(cell, x, Forest(children)), **EXACT)


def test_roots_are_nobody_s_children() -> None:
    assert Forest(padded(CHILDREN)).roots.tolist() == [6, 7, 9]


def test_the_levels_hold_every_node_once_and_leaves_apart() -> None:
    levels = Forest(padded(CHILDREN)).levels
    assert [level.leaves.tolist() for level in levels] == [[1], [0], [2, 3, 8], [7]]
    assert [level.inner.tolist() for level in levels] == [[], [4], [5], [6, 9]]


@pytest.mark.parametrize(
    ("children", "line"),
    [
        ([], "expected at least one node, got none"),
        ([[1], []], "expected children before their parents, got 1 as a child of 0"),
        ([[], [1]], "expected children before their parents, got 1 as a child of 1"),
        ([[], [0], [0]], "expected one parent a node, got 2 for 0"),
    ],
)
def test_what_is_no_forest_is_told(children: list[list[int]], line: str) -> None:
    with pytest.raises(TreeError, match=line):
        Forest(padded(children) if children else torch.empty(0, 2, dtype=torch.long))


def test_saturated_nodes_stay_finite(cell: ChildSumLSTM) -> None:
    x = (1e4 * random_inputs(cell, len(CHILDREN))).detach().requires_grad_()
    states = over_forest(cell, x, Forest(padded(CHILDREN)))
    slopes = torch.autograd.grad(sum(segment.sum() for segment in states), [x, *cell.parameters()])
    assert all(torch.isfinite(values).all() for values in (*states, *slopes))
