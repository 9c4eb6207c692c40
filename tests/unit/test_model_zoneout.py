"""Zoneout: units that stay what they were, in training by chance and in evaluation by their expectation."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from model.cells.gated import CellError
from model.layer import Conditions, run_layer
from model.model_recipe import ZoneoutRecipe
from model.over_time import unroll
from model.zoneout import zoneout
from tests.cells import SMALL, random_inputs, random_state, small

EXACT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def shares(cell: Any, hidden: float = 0.3, of_cell: float = 0.6) -> ZoneoutRecipe:
    return ZoneoutRecipe(hidden=hidden, cell=of_cell if "cell" in cell.initial_state(1)._fields else 0.0)


@pytest.mark.parametrize("name", SMALL)
def test_a_unit_either_stays_or_changes_as_often_as_asked_for(name: str) -> None:
    cell = small(name)
    x, before = random_inputs(cell, 1, 2000), random_state(cell, 2000)
    _, plain = unroll(cell, x, before)
    output, zoned = unroll(cell, x, before, zone=zoneout(cell, shares(cell), training=True))
    for part, share in (("hidden", 0.3), ("cell", 0.6))[: len(before)]:
        old, new, found = (getattr(state, part) for state in (before, plain, zoned))
        assert torch.equal(found, torch.where(found == old, old, new))
        assert float((found == old).double().mean()) == pytest.approx(share, abs=0.03)
    assert torch.equal(output[0], zoned.hidden)


@pytest.mark.parametrize("name", SMALL)
def test_every_step_draws_anew(name: str) -> None:
    cell = small(name)
    zone = zoneout(cell, shares(cell), training=True)
    before, after = random_state(cell, 50), random_state(cell, 50)
    assert not torch.equal(zone(before, after).hidden, zone(before, after).hidden)


@pytest.mark.parametrize("name", SMALL)
def test_evaluation_takes_the_expectation(name: str) -> None:
    cell = small(name)
    before, after = random_state(cell, 3), random_state(cell, 3)
    zoned = zoneout(cell, shares(cell), training=False)(before, after)
    assert_close(zoned.hidden, 0.3 * before.hidden + 0.7 * after.hidden, **EXACT)
    if "cell" in before._fields:
        assert_close(zoned.cell, 0.6 * before.cell + 0.4 * after.cell, **EXACT)


def by_hand(cell: Any, x: Tensor, hidden: Tensor, c: Tensor) -> Tensor:
    """An LSTM with zoneout in evaluation, written out."""
    outputs = []
    for x_t in x:
        i, f, g, o = (x_t @ cell.weight_x.T + hidden @ cell.weight_h.T + cell.bias).chunk(4, dim=-1)
        new_c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        new_hidden = o.sigmoid() * new_c.tanh()  # from the new cell before that is zoned
        c = 0.6 * c + 0.4 * new_c
        hidden = 0.3 * hidden + 0.7 * new_hidden
        outputs.append(hidden)
    return torch.stack(outputs)


def test_the_new_hidden_state_comes_from_the_cell_before_it_is_zoned() -> None:
    cell = small("lstm")
    x, state = random_inputs(cell, 7, 3), random_state(cell, 3)
    conditions = Conditions(zoneout=ZoneoutRecipe(hidden=0.3, cell=0.6))
    output, _ = run_layer(cell, x, state, conditions, layer=0, training=False)
    assert_close(output, by_hand(cell, x, *state), **EXACT)


@pytest.mark.parametrize("name", SMALL)
def test_a_layer_with_zoneout_is_random_in_training_alone(name: str) -> None:
    cell = small(name)
    x, state, conditions = random_inputs(cell, 5, 8), random_state(cell, 8), Conditions(zoneout=shares(cell))
    outputs = {
        training: [run_layer(cell, x, state, conditions, layer=0, training=training)[0] for _ in range(2)]
        for training in (True, False)
    }
    assert not torch.equal(*outputs[True])
    assert torch.equal(*outputs[False])


def test_nothing_to_zone_out_is_no_zoneout() -> None:
    assert zoneout(small("gru"), ZoneoutRecipe(), training=True) is None


def test_a_part_that_the_state_has_not_is_refused() -> None:
    with pytest.raises(CellError, match=r"zoneout\.cell: the state of GRU is hidden and nothing else"):
        zoneout(small("gru"), ZoneoutRecipe(cell=0.5), training=True)
