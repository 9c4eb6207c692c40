"""Layers of cells: what each reads, what they share, and what acts on them while they learn."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from model.cells import CELLS
from model.cells.gated import CellError
from model.layer import Conditions
from model.model_recipe import DropoutRecipe, ModelRecipe, ZoneoutRecipe
from model.over_time import unroll
from model.stack import Stack

WIDTH = 6

CELL_RECIPES = {
    "lstm": "lstm",
    "peephole": "peephole",
    "coupled": "coupled",
    "projected": {"kind": "projected", "projection": 4},
    "projected, clipped": {"kind": "projected", "projection": 4, "cell_clip": 0.5, "projection_clip": 0.25},
    "highway-time": "highway-time",
    "highway-depth": "highway-depth",
    "multiplicative-brief": "multiplicative-brief",
    "multiplicative": {"kind": "multiplicative", "intermediate": 5},
    "gru": "gru",
    "gru, reset before": {"kind": "gru", "reset_after": False},
    "rnn": "rnn",
    "rnn, relu": {"kind": "rnn", "nonlinearity": "relu"},
}

REGULARISERS = {
    "between": {"between": 0.5},
    "between, locked": {"between": 0.5, "locked": True},
    "input": {"input": 0.5},
    "hidden": {"hidden": 0.5},
    "untied": {"input": 0.5, "between": 0.5, "hidden": 0.5, "untied": True},
    "weight": {"weight": 0.5},
}


def stack_of(name: str, layers: int = 2, **conditions: Any) -> Stack:
    torch.manual_seed(0)
    recipe = ModelRecipe.model_validate(
        {"embedding": WIDTH, "hidden": WIDTH, "layers": layers, "cell": CELL_RECIPES[name]}
    )
    return Stack(WIDTH, WIDTH, layers, cell=recipe.cell, conditions=Conditions(**conditions))


def run(stack: Stack) -> Tensor:
    x = torch.ones(3, 2, WIDTH)
    output, _ = stack(x, stack.initial_state(2))
    return output


def test_every_cell_can_be_named_in_a_recipe() -> None:
    kinds = {one if isinstance(one, str) else one["kind"] for one in CELL_RECIPES.values()}
    assert kinds == set(CELLS)


@pytest.mark.parametrize("name", CELL_RECIPES)
def test_each_layer_reads_the_one_below(name: str) -> None:
    stack = stack_of(name).eval()
    first, second = stack.by_layer()
    below, _ = unroll(first, torch.ones(3, 2, WIDTH), first.initial_state(2))
    above, _ = unroll(second, below, second.initial_state(2))
    assert_close(run(stack), above)
    assert above.shape == (3, 2, stack.width)


@pytest.mark.parametrize("dropout", REGULARISERS.values(), ids=REGULARISERS)
@pytest.mark.parametrize("name", CELL_RECIPES)
def test_every_dropout_acts_on_every_cell_while_training_and_never_in_evaluation(
    name: str, dropout: dict[str, Any]
) -> None:
    stack = stack_of(name, dropout=DropoutRecipe(**dropout))
    assert not torch.equal(run(stack), run(stack))
    stack.eval()
    assert torch.equal(run(stack), run(stack))
    assert_close(run(stack), run(stack_of(name).eval()))


@pytest.mark.parametrize("dropout", REGULARISERS.values(), ids=REGULARISERS)
@pytest.mark.parametrize("name", CELL_RECIPES)
def test_every_weight_learns_under_every_dropout(name: str, dropout: dict[str, Any]) -> None:
    stack = stack_of(name, dropout=DropoutRecipe(**dropout))
    state = tuple(type(layer)(*map(torch.ones_like, layer)) for layer in stack.initial_state(16))
    output, _ = stack(torch.randn(5, 16, WIDTH), state)
    output.square().sum().backward()
    for parameter in stack.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()


def test_nothing_is_dropped_after_the_last_layer_nor_before_the_first_unless_asked_for() -> None:
    between = DropoutRecipe(between=0.9)
    assert torch.equal(run(stack_of("lstm", 1, dropout=between)), run(stack_of("lstm", 1)))


def test_what_is_dropped_before_the_first_layer_is_not_dropped_between_layers() -> None:
    """With an input of zeros there is nothing to drop before the first."""
    stack = stack_of("lstm", dropout=DropoutRecipe(input=0.9))
    zeros = torch.zeros(3, 2, WIDTH)
    outputs = [stack(zeros, stack.initial_state(2))[0] for _ in range(2)]
    assert torch.equal(*outputs)


def test_a_state_of_too_few_layers_is_an_error() -> None:
    stack = stack_of("lstm")
    with pytest.raises(ValueError, match="shorter"):
        stack(torch.ones(3, 2, WIDTH), stack.initial_state(2)[:1])


@pytest.mark.parametrize("name", CELL_RECIPES)
def test_the_state_comes_back_as_float32_where_products_are_bfloat16(name: str) -> None:
    stack = stack_of(name, dropout=DropoutRecipe(hidden=0.5))
    with torch.autocast("cpu", torch.bfloat16):
        _, state = stack(torch.ones(3, 2, WIDTH), stack.initial_state(2))
    assert {segment.dtype for layer in state for segment in layer} == {torch.float32}


def test_layers_that_read_equally_many_numbers_are_one_where_weights_are_shared() -> None:
    narrow, equal = (Stack(size, WIDTH, 4, share=True) for size in (3, WIDTH))
    assert [len(stack.cells) for stack in (narrow, equal)] == [2, 1]
    assert [len(stack.initial_state(2)) for stack in (narrow, equal)] == [4, 4]
    assert len(set(narrow.by_layer())) == 2


def test_shared_layers_compute_what_layers_of_equal_weights_do_and_add_their_gradients() -> None:
    torch.manual_seed(0)
    shared, apart = Stack(3, WIDTH, 3, share=True).double(), Stack(3, WIDTH, 3).double()
    weights = shared.state_dict()
    apart.load_state_dict(weights | {name.replace("cells.1.", "cells.2."): w for name, w in weights.items()})
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    one, one_state = shared(x, shared.initial_state(2))
    other, other_state = apart(x, apart.initial_state(2))
    assert_close(one, other)
    assert_close(one_state, other_state)
    one.square().sum().backward()
    other.square().sum().backward()
    assert_close(shared.cells[1].weight_h.grad, apart.cells[1].weight_h.grad + apart.cells[2].weight_h.grad)


def test_a_cell_that_cannot_have_the_sizes_says_so() -> None:
    recipe = ModelRecipe.model_validate(
        {"embedding": 3, "hidden": WIDTH, "layers": 1, "cell": "multiplicative-brief"}
    )
    with pytest.raises(CellError, match="expected as many inputs as hidden units, got 3 and 6"):
        Stack(3, WIDTH, 1, cell=recipe.cell)


@pytest.mark.parametrize("name", ["gru", "rnn"])
def test_zoneout_of_a_cell_state_that_is_not_there_is_refused_when_the_stack_is_made(name: str) -> None:
    with pytest.raises(CellError, match=r"zoneout\.cell: the state of \w+ is hidden and nothing else"):
        stack_of(name, zoneout=ZoneoutRecipe(cell=0.1))
