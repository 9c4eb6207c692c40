"""Every cell in short precision and at the ends of its range: what is added up is not lost, and nothing overflows."""

import pytest
import torch
from torch.testing import assert_close

from model.layer import Conditions, run_layer
from model.over_time import fused, has_kernel, unroll
from tests.cells import SMALL, drawn, gradients, random_inputs, random_state, small, variables

STEPS, BATCH = 7, 3
WITH_CELL = [name for name in SMALL if "gru" not in name and "rnn" not in name and "clipped" not in name]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", SMALL)
def test_under_autocast_products_are_short_and_the_state_is_float32(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    cell = small(name).float()
    x = random_inputs(cell, STEPS, BATCH).detach().float()
    state = cell.initial_state(BATCH)
    exact, _ = unroll(cell, x, state)
    with torch.autocast("cpu", dtype):
        found, last = unroll(cell, x, state)
        _, after = run_layer(cell, x, state, Conditions(), layer=0, training=True)
    assert {part.dtype for part in (*last, *after)} == {torch.float32}
    error = ((found - exact).norm() / exact.norm()).item()
    assert 0 < error < 0.03
    found.sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in cell.parameters())


@pytest.mark.parametrize("name", WITH_CELL)
def test_what_a_cell_adds_up_over_many_steps_is_not_lost_under_autocast(name: str) -> None:
    """In bfloat16 1 + 0.002 is 1: a state of that type would never get anywhere."""
    cell = small(name).float()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        biases = cell.blocks(cell.bias)
        biases["forget"].fill_(9.0)  # keeps 0.99988 of the cell
        biases["candidate"].fill_(0.004)
        if "input" not in biases:
            biases["forget"].fill_(6.0)  # what is taken in is 1 minus that
            biases["candidate"].fill_(9.0)
    state = cell.initial_state(1)
    state = state._replace(cell=torch.ones_like(state.cell) * (1.0 if "input" in biases else 0.5))
    x = torch.zeros(50, 1, cell.input_size)
    _, exact = unroll(cell, x, state)
    with torch.autocast("cpu", torch.bfloat16):
        _, found = unroll(cell, x, state)
    assert (exact.cell - state.cell).abs().min() > 0.02
    assert_close(found.cell, exact.cell, rtol=1e-3, atol=0)


@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("name", SMALL)
def test_saturated_inputs_give_finite_values_and_gradients(name: str, size: float) -> None:
    torch.manual_seed(0)
    cell = drawn(SMALL[name]())
    x = torch.full((STEPS, BATCH, cell.input_size), size, requires_grad=True)
    state = random_state(cell, BATCH)
    for run in (unroll, fused) if has_kernel(cell) else (unroll,):
        found = run(cell, x, state)
        of = variables(cell, x, state)
        assert all(part.isfinite().all() for part in (found[0], *found[1], *gradients(found, of).values()))
