"""Gradient norms and gradient flow, against other ways to compute them."""

import math

import numpy as np
import torch
from torch import Tensor

from model import by_hand
from model.cells.lstm import LSTM, LSTMState
from model.cells.rnn import RNN
from model.diagnostics.flow import direct, gradient_flow
from model.diagnostics.gradients import gradient_norms
from model.diagnostics.watch import Layer, watched
from model.model_recipe import RNNCell
from model.stack import Stack

T, B, INPUT, H = 12, 3, 5, 4


def run(layers: int = 1, seed: int = 0) -> tuple[Stack, list[Layer], Tensor]:
    """A stack of LSTMs with large random weights, and its run."""
    torch.manual_seed(seed)
    stack = Stack(INPUT, H, layers).double()
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.normal_()
    with watched(stack) as seen:
        y_TBH, _ = stack(torch.randn(T, B, INPUT, dtype=torch.float64), stack.initial_state(B))
    return stack, seen, y_TBH


def constant_gates(forget: float) -> tuple[list[Layer], Tensor]:
    """An LSTM that looks at nothing but the input of its candidate: all its gates stand still."""
    stack = Stack(INPUT, H, 1).double()
    (cell,) = stack.by_layer()
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.zero_()
        cell.blocks(cell.weight_x)["candidate"].normal_()
        cell.blocks(cell.bias)["forget"].fill_(math.log(forget / (1 - forget)))
    with watched(stack) as seen:
        y_TBH, _ = stack(torch.randn(T, B, INPUT, dtype=torch.float64), stack.initial_state(B))
    return seen, y_TBH


def test_norms_are_those_of_the_blocks_of_the_gradient_that_backward_leaves() -> None:
    stack, layers, y_TBH = run(layers=2)
    found = gradient_norms(layers, loss := y_TBH.square().mean())
    loss.backward()
    for cell, norms in zip(stack.by_layer(), found, strict=True):
        assert isinstance(cell, LSTM)
        assert set(norms) == {"weight_x", "weight_h", "bias"}
        for name, by_gate in norms.items():
            gradient = getattr(cell, name).grad
            for k, gate in enumerate(("input", "forget", "candidate", "output")):
                assert math.isclose(by_gate[gate], float(gradient[k * H : (k + 1) * H].norm()), rel_tol=1e-12)


def test_a_parameter_of_no_gate_stands_under_its_own_name() -> None:
    stack = Stack(INPUT, H, 1, cell=RNNCell(kind="rnn")).double()
    with watched(stack) as layers:
        y_TBH, _ = stack(torch.randn(T, B, INPUT).double(), stack.initial_state(B))
    assert set(gradient_norms(layers, y_TBH.sum())[0]["weight_h"]) == {"candidate"}


def test_with_gates_that_stand_still_both_flows_are_powers_of_the_forget_gate() -> None:
    layers, y_TBH = constant_gates(forget=0.8)
    flow = gradient_flow(layers[0], T - 1, y_TBH[-1].sum())
    expected = (0.8 ** torch.arange(T).double()).unsqueeze(1).expand(T, B)
    torch.testing.assert_close(flow.direct_KB, expected)
    torch.testing.assert_close(flow.total_KB, expected)


def test_the_direct_flow_is_autograd_s_where_the_gates_do_not_see_the_state() -> None:
    _, layers, _ = run()
    layer = layers[0]
    cell, state, memories = layer.cell, layer.states[0], []
    for x_BI in layer.x_TBI:
        gates = cell.gates(cell.inputs(x_BI), state.hidden.detach(), state)  # the LSTM's gates see no cell
        _, state = cell.update(gates, state)
        memories.append(state.cell)
    gradients = torch.autograd.grad(state.hidden.sum(), memories)
    back_KBU = torch.stack(gradients).flip(0)
    torch.testing.assert_close(direct(back_KBU[0], layer.kept_TBU.flip(0)), back_KBU, rtol=1e-12, atol=1e-15)


def test_the_total_flow_is_what_the_gradients_by_hand_say() -> None:
    _, layers, y_TBH = run()
    layer = layers[0]
    weights = by_hand.Weights(
        layer.cell.weight_x.detach().numpy(),
        layer.cell.weight_h.detach().numpy(),
        layer.cell.bias.detach().numpy(),
        np.zeros((3, H)),
    )
    # Their blocks are in the order i, f, g, o as well.
    _, steps = by_hand.forward(weights, layer.x_TBI.numpy(), np.zeros((B, H)), np.zeros((B, H)))
    norms = []
    for back in range(T):
        after = steps[T - back :]
        d_h, d_c = np.ones((B, H)), np.zeros((B, H))
        if after:
            gradients = by_hand.backward(weights, after, np.zeros((back, B, H)), d_h, d_c)
            d_h, d_c = gradients.hidden, gradients.cell
        at = steps[T - 1 - back]
        d_c = d_c + d_h * at.o * (1 - np.tanh(at.c) ** 2)
        norms.append(np.linalg.norm(d_c, axis=1))
    flow = gradient_flow(layer, T - 1, y_TBH[-1].sum())
    np.testing.assert_allclose(flow.total_KB.numpy(), np.array(norms) / norms[0], rtol=1e-10)


def test_the_flow_through_an_rnn_at_rest_is_the_power_of_its_scale() -> None:
    stack = Stack(INPUT, H, 1, cell=RNNCell(kind="rnn")).double()
    (cell,) = stack.by_layer()
    assert isinstance(cell, RNN)
    with torch.no_grad():
        cell.weight_h.mul_(0.5)  # it was orthogonal
    with watched(stack) as layers:
        y_TBH, _ = stack(torch.zeros(T, B, INPUT).double(), stack.initial_state(B))
    flow = gradient_flow(layers[0], T - 1, y_TBH[-1].sum())
    torch.testing.assert_close(flow.total_KB[:, 0], 0.5 ** torch.arange(T).double(), rtol=1e-6, atol=0)
    assert (flow.direct_KB[1:] == 0).all()


def test_the_flow_begins_at_the_step_of_the_loss() -> None:
    layers, y_TBH = constant_gates(forget=0.9)
    flow = gradient_flow(layers[0], 4, y_TBH[4].sum())
    assert flow.total_KB.shape == (5, B)
    torch.testing.assert_close(flow.total_KB[:, 0], 0.9 ** torch.arange(5).double())


def test_a_sequence_whose_loss_does_not_depend_on_the_layer_is_unknown() -> None:
    layers, y_TBH = constant_gates(forget=0.9)
    flow = gradient_flow(layers[0], T - 1, y_TBH[-1, 0].sum())
    assert not flow.total_KB[:, 0].isnan().any()
    assert flow.total_KB[:, 1:].isnan().all()


def test_the_state_that_is_looked_at_is_the_one_that_the_loss_depends_on() -> None:
    _, layers, _ = run()
    assert isinstance(layers[0].states[-1], LSTMState)
    assert layers[0].memories[-1] is layers[0].states[-1].cell
