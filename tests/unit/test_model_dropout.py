"""Dropout that draws once and keeps to it: what is drawn, how often, and what sees it."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from model.dropout import locked, mask, without_connections, without_symbols
from model.layer import Conditions, run_layer
from model.model_recipe import DropoutRecipe
from model.over_time import unroll
from model.substitute import input_weights, recurrent_weights, with_weights
from model.untied import MaskedWeight, untied
from tests.cells import SMALL, random_inputs, random_state, small

EXACT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def is_mask(drawn: Tensor, share: float) -> bool:
    """Whether there is nothing but 0, as often as asked for, and 1 / (1 - share)."""
    values = {round(value, 6) for value in drawn.flatten().tolist()}
    zeros = (drawn == 0).double().mean()
    return values == {0.0, round(1 / (1 - share), 6)} and abs(float(zeros) - share) < 0.03


def test_a_mask_drops_the_share_and_scales_up_the_rest() -> None:
    assert is_mask(mask(0.3, torch.empty(()), 100, 100), 0.3)


def test_a_locked_mask_is_the_same_in_all_steps_and_another_in_every_row() -> None:
    dropped = locked(torch.ones(5, 40, 50), 0.25)
    assert is_mask(dropped[0], 0.25)
    assert_close(dropped, dropped[:1].expand(5, 40, 50))
    assert not torch.equal(dropped[0, 0], dropped[0, 1])


@pytest.mark.parametrize("lock", [False, True])
def test_a_layer_s_inputs_are_dropped_in_each_step_or_in_all(lock: bool) -> None:
    cell, dropout = small("lstm"), DropoutRecipe(input=0.5, between=0.9, locked=lock)
    x, state = random_inputs(cell, 7, 3), random_state(cell, 3)
    torch.manual_seed(1)
    found, _ = run_layer(cell, x, state, Conditions(dropout=dropout), layer=0, training=True)
    torch.manual_seed(1)
    expected, _ = unroll(cell, (locked if lock else functional.dropout)(x, 0.5), state)
    assert_close(found, expected, **EXACT)


def test_a_dropped_symbol_is_dropped_whole() -> None:
    dropped = without_symbols(torch.ones(2000, 3), 0.25)
    assert is_mask(dropped[:, 0], 0.25)
    assert_close(dropped, dropped[:, :1].expand(2000, 3))


@pytest.mark.parametrize("name", SMALL)
def test_a_masked_hidden_state_is_one_that_the_gates_alone_see(name: str) -> None:
    """For a single row a mask on what a matrix reads is a mask on the columns of the matrix."""
    cell = small(name)
    x, state = random_inputs(cell, 7, 1), random_state(cell, 1)
    mask_BH = mask(0.5, state.hidden, *state.hidden.shape)
    read_hidden = {"weight_mh"} if hasattr(cell, "weight_mh") else recurrent_weights(cell).keys()
    columns_masked = {name: getattr(cell, name) * mask_BH for name in read_hidden}
    expected = unroll(with_weights(cell, columns_masked), x, state)
    assert_close(unroll(cell, x, state, mask_BH=mask_BH), expected, **EXACT)


@pytest.mark.parametrize("name", SMALL)
def test_each_block_of_an_untied_weight_sees_its_own_mask(name: str) -> None:
    cell = small(name)
    x, state = random_inputs(cell, 7, 1), random_state(cell, 1)
    masked, by_hand = {}, {}
    for key, weight in (input_weights(cell) | recurrent_weights(cell)).items():
        blocks = len(cell.gate_names) if key in ("weight_x", "weight_h") else 1
        masks_GBn = mask(0.5, weight, blocks, 1, weight.shape[1])
        masked[key] = MaskedWeight(weight, masks_GBn)
        by_hand[key] = torch.cat(
            [block * drawn for block, drawn in zip(weight.chunk(blocks), masks_GBn, strict=True)]
        )
    expected = unroll(with_weights(cell, by_hand), x, state)
    assert_close(unroll(with_weights(cell, masked), x, state), expected, **EXACT)


def test_untied_masks_differ_by_gate_and_row_and_not_by_step() -> None:
    cell = small("lstm")
    shares = {"input_share": 0.25, "hidden_share": 0.5}
    wide = with_weights(
        cell, {"weight_x": torch.eye(400).repeat(4, 1), "weight_h": torch.eye(400).repeat(4, 1)}
    )
    drawn = untied(wide, 8, **shares)
    of_input = functional.linear(torch.ones(3, 8, 400), drawn.weight_x)
    of_hidden = functional.linear(torch.ones(8, 400), drawn.weight_h)
    assert is_mask(of_input, 0.25)
    assert is_mask(of_hidden, 0.5)
    assert_close(of_input[0], of_input[2])
    gates = torch.stack(of_hidden.chunk(4, dim=-1)).flatten(0, 1)
    assert len({tuple(row.tolist()) for row in gates}) == 4 * 8
    assert untied(wide, 8, input_share=0.0, hidden_share=0.5).weight_x is wide.weight_x


@pytest.mark.parametrize("name", SMALL)
def test_every_matrix_of_a_cell_reads_the_input_or_the_hidden_state_or_projects(name: str) -> None:
    cell = small(name)
    known = input_weights(cell).keys() | recurrent_weights(cell).keys() | {"weight_projection"}
    assert {key for key, weight in cell.named_parameters() if weight.ndim == 2} <= known


def test_dropped_connections_are_single_weights_and_the_cell_keeps_them() -> None:
    cell = small("multiplicative")
    before = {name: weight.clone() for name, weight in cell.state_dict().items()}
    dropped = without_connections(cell, 0.5)
    for name in ("weight_h", "weight_mh"):
        found, weight = getattr(dropped, name), getattr(cell, name)
        assert (found == 0).any()
        assert_close(found, torch.where(found == 0, 0.0, 2 * weight))
    assert dropped.weight_x is cell.weight_x
    assert_close(cell.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["lstm", "coupled"])
def test_the_same_connections_are_dropped_in_all_steps_and_others_in_every_run(name: str) -> None:
    """One of the two goes through the library's kernel, the other through the loop."""
    cell, conditions = small(name), Conditions(dropout=DropoutRecipe(weight=0.5))
    x, state = random_inputs(cell, 7, 3), random_state(cell, 3)

    def run() -> Tensor:
        output, _ = run_layer(cell, x, state, conditions, layer=0, training=True)
        return output

    torch.manual_seed(1)
    found = run()
    torch.manual_seed(1)
    expected, _ = unroll(without_connections(cell, 0.5), x, state)
    assert_close(found, expected, **EXACT)
    assert not torch.equal(found, run())


def test_a_dropped_connection_learns_nothing() -> None:
    cell = small("lstm")
    dropped = without_connections(cell, 0.5)
    output, _ = unroll(dropped, random_inputs(cell, 7, 3), random_state(cell, 3))
    (gradient,) = torch.autograd.grad(output.sum(), [cell.weight_h])
    assert torch.equal(gradient == 0, dropped.weight_h == 0)
