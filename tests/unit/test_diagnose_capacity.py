"""Memory capacity where it is known."""

import math

import pytest
import torch
from torch import Tensor

from model.diagnostics.capacity import driven_states, memory_capacity
from model.stack import Stack

T, B, DELAYS = 200, 16, 30


def white(steps: int = T) -> Tensor:
    return torch.randn(steps, B, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("units", [1, 8])
def test_a_delay_line_remembers_as_many_inputs_as_it_has_units(units: int) -> None:
    signal_TB = white()
    line_TBF = torch.stack([signal_TB.roll(k, dims=0) for k in range(units)], dim=-1)
    read_K = memory_capacity(line_TBF[units:], signal_TB[units:], DELAYS)
    assert read_K[:units].tolist() == pytest.approx([1] * units, abs=1e-6)
    assert float(read_K.sum()) == pytest.approx(units, abs=0.05)


def test_a_leaky_integrator_remembers_one_input_spread_over_many() -> None:
    signal_TB, leak = white(2000), 0.8
    state_B, states = torch.zeros(B).double(), []
    for u_B in signal_TB:
        state_B = leak * state_B + u_B
        states.append(state_B)
    read_K = memory_capacity(torch.stack(states).unsqueeze(-1)[100:], signal_TB[100:], DELAYS)
    truth = [(1 - leak**2) * leak ** (2 * k) for k in range(DELAYS)]
    assert read_K.tolist() == pytest.approx(truth, abs=0.02)
    assert float(read_K.sum()) == pytest.approx(1, abs=0.1)


def test_noise_remembers_nothing_however_many_units_it_has() -> None:
    noise_TBF = torch.randn(T, B, 200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert float(memory_capacity(noise_TBF, white(), DELAYS).sum()) < 0.1


def test_a_unit_that_never_moves_remembers_nothing() -> None:
    still_TBF = torch.ones(T, B, 1, dtype=torch.float64)
    assert memory_capacity(still_TBF, white(), DELAYS).tolist() == pytest.approx([0] * DELAYS, abs=1e-9)


def test_an_lstm_with_still_gates_and_small_inputs_is_a_leaky_integrator() -> None:
    """Its candidate is all but linear there, and each unit holds the same sum with the weights f^k."""
    stack, forget = Stack(3, 2, 1).double(), 0.7
    (cell,) = stack.by_layer()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.blocks(cell.weight_x)["candidate"].fill_(1e-3)
        cell.blocks(cell.bias)["forget"].fill_(math.log(forget / (1 - forget)))
    task_TBI = torch.randn(50, 4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (states_TBF,), signal_TB = driven_states(stack, task_TBI)
    read_K = memory_capacity(states_TBF, signal_TB, DELAYS)
    truth = [(1 - forget**2) * forget ** (2 * k) for k in range(DELAYS)]
    assert read_K.tolist() == pytest.approx(truth, abs=0.03)


def test_what_drives_a_stack_has_the_mean_and_the_variance_of_its_task() -> None:
    task_TBI = 5 + torch.randn(400, 4, 2, generator=torch.Generator().manual_seed(3)).double() * torch.tensor(
        [3, 0.1]
    )
    seen = []
    stack = Stack(2, 4, 1).double()
    (cell,) = stack.by_layer()
    usual = cell.inputs
    cell.inputs = lambda x: seen.append(x) or usual(x)  # type: ignore[method-assign, func-returns-value]
    _, signal_TB = driven_states(stack, task_TBI)
    assert signal_TB.var().item() == pytest.approx(1, rel=0.05)
    assert seen[0].mean(dim=(0, 1)).tolist() == pytest.approx([5, 5], abs=0.2)
    assert seen[0].std(dim=(0, 1)).tolist() == pytest.approx([3, 0], abs=0.2)
