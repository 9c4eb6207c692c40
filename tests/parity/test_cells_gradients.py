"""The gradients of every cell against differences of its values, in float64."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from model.over_time import unroll
from tests.cells import SMALL, gradients, random_inputs, random_state, small, variables

STEPS, BATCH = 3, 2


@pytest.mark.parametrize("name", SMALL)
def test_all_gradients_of_a_cell_over_time_are_slopes(name: str) -> None:
    torch.manual_seed(0)
    cell = small(name)
    x, state = random_inputs(cell, STEPS, BATCH), random_state(cell, BATCH)

    def run(*_: Tensor) -> tuple[Tensor, ...]:  # gradcheck moves what it is given in place
        output, last = unroll(cell, x, state)
        return output, *last

    assert gradcheck(run, tuple(variables(cell, x, state).values()), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_matters(name: str) -> None:
    torch.manual_seed(0)
    cell = small(name)
    x, state = random_inputs(cell, STEPS, BATCH), random_state(cell, BATCH)
    slopes = gradients(unroll(cell, x, state), variables(cell, x, state))
    assert all(slope.any() for slope in slopes.values())
