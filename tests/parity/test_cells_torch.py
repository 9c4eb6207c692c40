"""Our cells against PyTorch's modules, wherever there is one: outputs, last states and all gradients, in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close

from model.cells.coupled import CoupledLSTM
from model.cells.gated import Gated
from model.cells.gru import GRU
from model.over_time import unroll
from tests.cells import HIDDEN, INPUT, gradients, random_inputs, random_state, small, variables

STEPS, BATCH = 7, 3
EXACT = {"rtol": 1e-10, "atol": 1e-10}  # the order of additions is all that may differ

Weights = dict[str, Tensor]


def with_one_bias(cell: Gated[Any, Any]) -> Weights:
    """Our weights under PyTorch's names; its second bias is zero."""
    return {
        "weight_ih_l0": cell.weight_x,
        "weight_hh_l0": cell.weight_h,
        "bias_ih_l0": cell.bias,
        "bias_hh_l0": torch.zeros_like(cell.bias),
    }


def of_gru(cell: GRU) -> Weights:
    other_gates = cell.bias.new_zeros(2 * HIDDEN)
    return with_one_bias(cell) | {"bias_hh_l0": torch.cat([other_gates, cell.bias_h])}


def of_coupled(cell: CoupledLSTM) -> Weights:
    """An ordinary LSTM whose input gate is the forget gate with all signs turned."""
    own = {"weight_ih_l0": cell.weight_x, "weight_hh_l0": cell.weight_h, "bias_ih_l0": cell.bias}
    weights = {name: torch.cat([-cell.blocks(weight)["forget"], weight]) for name, weight in own.items()}
    return weights | {"bias_hh_l0": cell.bias.new_zeros(4 * HIDDEN)}


THEIRS: dict[str, tuple[Callable[[], nn.RNNBase], Callable[[Any], Weights]]] = {
    "lstm": (lambda: nn.LSTM(INPUT, HIDDEN), with_one_bias),
    "coupled": (lambda: nn.LSTM(INPUT, HIDDEN), of_coupled),
    "projected": (
        lambda: nn.LSTM(INPUT, HIDDEN, proj_size=3),
        lambda cell: with_one_bias(cell) | {"weight_hr_l0": cell.weight_projection},
    ),
    "gru": (lambda: nn.GRU(INPUT, HIDDEN), of_gru),
    "rnn": (lambda: nn.RNN(INPUT, HIDDEN), with_one_bias),
    "rnn, relu": (lambda: nn.RNN(INPUT, HIDDEN, nonlinearity="relu"), with_one_bias),
}


@pytest.mark.parametrize("name", THEIRS)
def test_a_cell_over_time_is_torch_s_module(name: str) -> None:
    torch.manual_seed(0)
    cell = small(name)
    make, weights_of = THEIRS[name]
    x, state = random_inputs(cell, STEPS, BATCH), random_state(cell, BATCH)

    found = unroll(cell, x, state)
    start = tuple(segment[None] for segment in state) if len(state) > 1 else state.hidden[None]
    output, last = functional_call(make().double(), weights_of(cell), (x, start))
    segments = last if isinstance(last, tuple) else (last,)
    expected = output, type(state)(*(segment[0] for segment in segments))

    assert_close(found, expected, **EXACT)
    of = variables(cell, x, state)
    assert_close(gradients(found, of), gradients(expected, of), **EXACT)


def test_resetting_before_the_product_is_another_function() -> None:
    torch.manual_seed(0)
    cell = small("gru, reset before")
    x, state = random_inputs(cell, STEPS, BATCH), random_state(cell, BATCH)
    theirs, _ = functional_call(nn.GRU(INPUT, HIDDEN).double(), with_one_bias(cell), (x, state.hidden[None]))
    assert (unroll(cell, x, state)[0] - theirs).abs().max() > 0.01


def test_a_projection_folds_into_the_recurrent_weights_of_an_ordinary_lstm() -> None:
    """What the planned ONNX form rests on: carry what is not yet projected, and project the outputs."""
    torch.manual_seed(0)
    cell = small("projected")
    x = random_inputs(cell, STEPS, BATCH)
    found = unroll(cell, x, cell.initial_state(BATCH))

    unprojected = nn.LSTM(INPUT, HIDDEN).double()
    folded = with_one_bias(cell) | {"weight_hh_l0": cell.weight_h @ cell.weight_projection}
    output, (_, last_cell) = functional_call(unprojected, folded, (x,))
    assert_close(found[0], output @ cell.weight_projection.T, **EXACT)
    assert_close(found[1].cell, last_cell[0], **EXACT)
