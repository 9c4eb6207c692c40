"""Checkpoints over time: less is kept, and nothing else changes, not by a bit."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from model.checkpointing import in_segments
from model.layer import Conditions, run_layer
from model.model_recipe import DropoutRecipe, ZoneoutRecipe
from tests.cells import INPUT, SMALL, gradients, random_inputs, random_state, small, variables

STEPS, BATCH = 11, 3
EXACT = {"rtol": 1e-10, "atol": 1e-10}
RANDOM = {
    "nothing": Conditions(),
    "dropout": Conditions(dropout=DropoutRecipe(input=0.5, hidden=0.5, weight=0.5)),
    "untied dropout": Conditions(dropout=DropoutRecipe(input=0.5, hidden=0.5, untied=True)),
    "zoneout": Conditions(zoneout=ZoneoutRecipe(hidden=0.5)),
}


def trained(cell: Any, x: Tensor, state: Any, conditions: Conditions) -> tuple[Any, dict[str, Tensor]]:
    torch.manual_seed(1)
    found = run_layer(cell, x, state, conditions, layer=0, training=True)
    torch.rand(7)  # what is drawn afterwards must not get into what is computed again
    return found, gradients(found, variables(cell, x, state))


@pytest.mark.parametrize("conditions", RANDOM.values(), ids=RANDOM)
@pytest.mark.parametrize("name", SMALL)
def test_outputs_and_gradients_are_bit_for_bit_those_of_the_same_segments_kept(
    name: str, conditions: Conditions, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    cell, conditions = small(name), conditions._replace(checkpointing=True)
    x, state = random_inputs(cell, STEPS, BATCH), random_state(cell, BATCH)
    found = trained(cell, x, state, conditions)
    monkeypatch.setattr("model.layer.in_segments", partial(in_segments, keep=True))
    kept = trained(cell, x, state, conditions)
    assert_close(found, kept, rtol=0, atol=0)


@pytest.mark.parametrize("name", SMALL)
def test_segments_are_the_whole(name: str) -> None:
    torch.manual_seed(0)
    cell = small(name)
    x, state = random_inputs(cell, STEPS, BATCH), random_state(cell, BATCH)
    whole = trained(cell, x, state, Conditions())
    assert_close(trained(cell, x, state, Conditions(checkpointing=True)), whole, **EXACT)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_rows_that_end_early_end_where_they_should_in_segments_too(checkpointing: bool) -> None:
    torch.manual_seed(0)
    cell, conditions = small("peephole"), Conditions(checkpointing=checkpointing)
    x, state = random_inputs(cell, STEPS, BATCH), random_state(cell, BATCH)
    lengths = torch.tensor([STEPS, 5, 1])
    output, last = run_layer(cell, x, state, conditions, layer=0, training=True, lengths_B=lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = type(state)(*(part[row : row + 1] for part in state))
        expected, end = run_layer(
            cell, x[:length, row : row + 1], alone, Conditions(), layer=0, training=True
        )
        assert_close(output[:length, row : row + 1], expected, **EXACT)
        assert not output[length:, row].any()
        assert_close(type(state)(*(part[row : row + 1] for part in last)), end, **EXACT)


def kept_numbers(steps: int, *, checkpointing: bool) -> int:
    """How many numbers a forward pass keeps for the backward pass, in tensors that are not parameters."""
    cell = small("peephole")
    counted: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            counted[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 8
        return tensor

    x, state = random_inputs(cell, steps, BATCH), random_state(cell, BATCH)
    held = []
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        held.append(
            run_layer(cell, x, state, Conditions(checkpointing=checkpointing), layer=0, training=True)
        )
    return sum(counted.values())


def test_nothing_is_kept_but_the_inputs_and_where_segments_start() -> None:
    inputs = 400 * BATCH * INPUT
    assert kept_numbers(400, checkpointing=True) <= inputs
    assert kept_numbers(400, checkpointing=False) > 6 * inputs


def test_a_single_step_is_a_segment() -> None:
    cell = small("gru")
    x, state = random_inputs(cell, 1, BATCH), random_state(cell, BATCH)
    found = run_layer(cell, x, state, Conditions(checkpointing=True), layer=0, training=True)
    assert_close(found[0][0], cell.step(x[0], state)[0], **EXACT)
