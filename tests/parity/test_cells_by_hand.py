"""The backward pass derived by hand against automatic differentiation, peepholes and all, in float64."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from model import by_hand
from model.cells.gated import Gated
from model.cells.lstm import LSTM
from model.over_time import unroll
from tests.cells import HIDDEN, random_inputs, random_state, small, variables

STEPS, BATCH = 7, 3
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def weights_of(cell: Gated) -> by_hand.Weights:
    peepholes = [
        getattr(cell, f"peephole_{gate}", torch.zeros(HIDDEN)) for gate in ("input", "forget", "output")
    ]
    return by_hand.Weights(
        *(array(weight) for weight in (cell.weight_x, cell.weight_h, cell.bias, torch.stack(peepholes)))
    )


def array(tensor: Tensor) -> by_hand.Array:
    return tensor.detach().double().numpy()


@pytest.mark.parametrize("name", ["lstm", "peephole"])
def test_the_gradients_by_hand_are_autograd_s(name: str) -> None:
    torch.manual_seed(0)
    cell = small(name)
    x, state = random_inputs(cell, STEPS, BATCH), random_state(cell, BATCH)
    output, last = unroll(cell, x, state)
    d_output, d_hidden, d_cell = (torch.randn_like(result) for result in (output, *last))
    loss = (output * d_output).sum() + (last.hidden * d_hidden).sum() + (last.cell * d_cell).sum()
    of = variables(cell, x, state)
    expected = dict(zip(of, torch.autograd.grad(loss, list(of.values())), strict=True))

    weights = weights_of(cell)
    outputs, steps = by_hand.forward(weights, array(x), array(state.hidden), array(state.cell))
    assert_close(outputs, array(output), **EXACT)
    assert_close(steps[-1].c, array(last.cell), **EXACT)

    found = by_hand.backward(weights, steps, array(d_output), array(d_hidden), array(d_cell))
    d_peepholes = dict(
        zip(("peephole_input", "peephole_forget", "peephole_output"), found.weights.peepholes, strict=True)
    )
    by_name = {
        "x": found.x_TBI,
        "hidden": found.hidden,
        "cell": found.cell,
        "weight_x": found.weights.x,
        "weight_h": found.weights.h,
        "bias": found.weights.bias,
        **(d_peepholes if name == "peephole" else {}),
    }
    assert_close(by_name, {key: array(slope) for key, slope in expected.items()}, **EXACT)


def test_through_the_cell_alone_the_gradient_is_the_product_of_the_forget_gates() -> None:
    """The brief's dL/dC_0 = dL/dC_T * prod f_t: true of the direct path, where the gates are held constant."""
    torch.manual_seed(0)
    cell = LSTM(5, HIDDEN).double()
    x, start = random_inputs(cell, STEPS, BATCH), random_state(cell, BATCH)

    state, forget = start, []
    for projected in cell.inputs(x):
        gates = cell.gates(projected, state.hidden.detach(), state)
        forget.append(gates.forget)
        _, state = cell.update(gates, state)
    (direct,) = torch.autograd.grad(state.cell.sum(), start.cell)
    assert_close(direct, torch.stack(forget).prod(dim=0), **EXACT)

    (total,) = torch.autograd.grad(unroll(cell, x, start)[1].cell.sum(), start.cell)
    assert not torch.allclose(total, direct, rtol=0.01), "the gates' own dependence is a path too"


def test_the_forward_pass_by_hand_does_not_overflow() -> None:
    weights = by_hand.Weights(np.full((4, 1), 1e4), np.zeros((4, 1)), np.zeros(4), np.zeros((3, 1)))
    with np.errstate(all="raise"):
        outputs, _ = by_hand.forward(
            weights, np.array([[[1.0]], [[-1.0]]]), np.zeros((1, 1)), np.zeros((1, 1))
        )
    assert_close(outputs[:, 0, 0], np.array([np.tanh(1), 0]))
