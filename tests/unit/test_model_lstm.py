"""The LSTM cell: its initialisation and its equations, one step at a time."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from model.cells.lstm import LSTM, LSTMGates, LSTMState
from model.over_time import has_kernel


@pytest.fixture
def cell() -> LSTM:
    torch.manual_seed(0)
    return LSTM(input_size=24, hidden_size=16)


def blocks(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    return dict(zip("ifgo", weight.detach().chunk(4), strict=True))


def test_only_the_forget_gate_starts_open_and_only_once(cell: LSTM) -> None:
    biases = blocks(cell.bias)
    assert_close(biases.pop("f"), torch.ones(16))
    assert all(not bias.any() for bias in biases.values())


def test_each_gate_has_an_orthogonal_recurrent_block(cell: LSTM) -> None:
    for block in blocks(cell.weight_h).values():
        assert_close(block @ block.T, torch.eye(16))


def test_each_gate_has_the_spread_of_its_own_fan(cell: LSTM) -> None:
    torch.manual_seed(0)
    wide = LSTM(input_size=300, hidden_size=100)
    bound = (6 / (300 + 100)) ** 0.5
    for block in blocks(wide.weight_x).values():
        assert 0.98 * bound < float(block.abs().max()) <= bound


def test_a_cell_has_one_bias_a_gate(cell: LSTM) -> None:
    assert sum(parameter.numel() for parameter in cell.parameters()) == 4 * 16 * (16 + 24 + 1)


def test_a_state_starts_at_zero(cell: LSTM) -> None:
    state = cell.initial_state(3)
    assert state._fields == ("hidden", "cell")
    assert all(segment.shape == (3, 16) and not segment.any() for segment in state)


def test_the_update_is_the_equation(cell: LSTM) -> None:
    gates = LSTMGates(
        input=torch.tensor([[0.5]]),
        forget=torch.tensor([[0.25]]),
        candidate=torch.tensor([[-0.5]]),
        output=torch.tensor([[0.1]]),
    )
    output, after = cell.update(gates, LSTMState(hidden=torch.tensor([[9.0]]), cell=torch.tensor([[2.0]])))
    assert_close(after.cell, torch.tensor([[0.25]]))  # 0.25 x 2 - 0.5 x 0.5
    assert_close(output, 0.1 * torch.tanh(torch.tensor([[0.25]])))
    assert after.hidden is output


def test_the_gates_see_the_hidden_state_they_are_given(cell: LSTM) -> None:
    state = LSTMState(torch.randn(2, 16), torch.randn(2, 16))
    projected = cell.inputs(torch.randn(2, 24))
    masked = cell.gates(projected, torch.zeros(2, 16), state)
    expected = torch.sigmoid(projected.chunk(4, dim=-1)[0])
    assert_close(masked.input, expected)


def test_a_step_leaves_the_state_before_it_alone(cell: LSTM) -> None:
    before = LSTMState(torch.randn(2, 16), torch.randn(2, 16))
    copy = LSTMState(*(segment.clone() for segment in before))
    cell.step(torch.randn(2, 24), before)
    assert_close(before, copy, rtol=0, atol=0)


def test_gates_and_cell_stay_float32_where_products_are_bfloat16(cell: LSTM) -> None:
    state = cell.initial_state(2)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        gates = cell.gates(cell.inputs(torch.randn(2, 24)), state.hidden, state)
        _, after = cell.update(gates, state)
    assert {part.dtype for part in (*gates, *after)} == {torch.float32}


def test_a_cell_derived_from_the_lstm_runs_by_its_own_equations() -> None:
    class Doubled(LSTM):
        def update(self, gates: LSTMGates, state: LSTMState) -> tuple[Tensor, LSTMState]:
            hidden, after = super().update(gates, state)
            return 2 * hidden, after

    assert has_kernel(LSTM(2, 3))
    assert not has_kernel(Doubled(2, 3))
