"""Where weights start, block by block: the statistics of the fused matrix would hide a wrong fan."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from model.cells import CELLS
from model.cells.gated import CellError, Gated
from model.initialise import initialise
from model.model_recipe import InitialiseRecipe
from model.substitute import blocks, recurrent_weights

INPUT, HIDDEN = 300, 200
OPTIONS: dict[str, dict[str, Any]] = {"projected": {"projection": 100}}
SIZES = {"multiplicative-brief": (HIDDEN, HIDDEN)}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def made(name: str, **settings: Any) -> Gated[Any, Any]:
    cell = CELLS[name](*SIZES.get(name, (INPUT, HIDDEN)), **OPTIONS.get(name, {}))
    initialise(cell, InitialiseRecipe(**settings))
    return cell


def recurrent_blocks(cell: Gated[Any, Any]) -> Iterator[Tensor]:
    for name, weight in recurrent_weights(cell).items():
        yield from weight.detach().chunk(blocks(cell, name))


@pytest.mark.parametrize("name", CELLS)
def test_without_settings_a_cell_stays_as_it_was_made(name: str) -> None:
    torch.manual_seed(1)
    plain = CELLS[name](*SIZES.get(name, (INPUT, HIDDEN)), **OPTIONS.get(name, {}))
    torch.manual_seed(1)
    assert_close(made(name).state_dict(), plain.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("name", CELLS)
def test_input_blocks_have_the_variance_of_their_own_fan(name: str) -> None:
    cell = made(name)
    for block in cell.blocks(cell.weight_x.detach()).values():
        assert float(block.var()) == pytest.approx(2 / sum(block.shape), rel=0.03)
        assert float(block.mean()) == pytest.approx(0, abs=0.002)


@pytest.mark.parametrize("name", CELLS)
def test_recurrent_blocks_are_orthogonal_times_the_scale(name: str) -> None:
    for block in recurrent_blocks(made(name, scale=0.5)):
        narrow = block if len(block) <= block.shape[1] else block.T
        assert_close(narrow @ narrow.T, 0.25 * torch.eye(len(narrow)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CELLS)
def test_recurrent_blocks_may_be_xavier_times_the_scale(name: str) -> None:
    for block in recurrent_blocks(made(name, recurrent="xavier", scale=2.0)):
        assert float(block.var()) == pytest.approx(4 * 2 / sum(block.shape), rel=0.03)


@pytest.mark.parametrize("name", CELLS)
def test_a_small_candidate_has_the_variance_of_one_over_hidden_and_other_gates_stay(name: str) -> None:
    torch.manual_seed(1)
    plain = made(name)
    torch.manual_seed(1)
    small = made(name, small_candidate=True)
    for matrix in ("weight_x", "weight_h"):
        before, after = (cell.blocks(getattr(cell, matrix).detach()) for cell in (plain, small))
        candidate = after.pop("candidate")
        assert not torch.equal(candidate, before.pop("candidate"))
        assert float(candidate.var()) == pytest.approx(1 / small.hidden_size, rel=0.03)
        assert_close(after, before, rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name in CELLS if name not in ("gru", "rnn")])
def test_the_forget_bias_is_set_once_and_no_other(name: str) -> None:
    cell = made(name, forget_bias=2.5)
    biases = cell.blocks(cell.bias.detach())
    assert_close(biases.pop("forget"), torch.full((HIDDEN,), 2.5))
    assert not any(bias.any() for bias in biases.values())


@pytest.mark.parametrize(
    ("name", "gate"), [(name, "forget") for name in CELLS if name not in ("gru", "rnn")] + [("gru", "update")]
)
def test_chrono_biases_are_memories_drawn_evenly_from_one_step_to_the_longest(name: str, gate: str) -> None:
    cell = CELLS[name](*SIZES.get(name, (20, 20)), **OPTIONS.get(name, {}))
    draws = []
    for _ in range(200):
        initialise(cell, InitialiseRecipe(chrono=100))
        draws.append(cell.blocks(cell.bias.detach())[gate].exp())
    memories = torch.cat(draws)
    assert 1 <= float(memories.min()) < 1.2
    assert 98.5 < float(memories.max()) <= 99.01
    assert float(memories.mean()) == pytest.approx(50, rel=0.05)
    biases = cell.blocks(cell.bias.detach())
    kept = biases.pop(gate)
    if "input" in biases:
        assert torch.equal(biases.pop("input"), -kept)
    assert not any(bias.any() for bias in biases.values())


@pytest.mark.parametrize("settings", [{"forget_bias": 1.0}, {"chrono": 100}])
def test_a_cell_that_never_forgets_has_no_bias_for_it(settings: dict[str, Any]) -> None:
    (setting,) = settings
    with pytest.raises(CellError, match=rf"initialise\.{setting}: RNN has no gate that forgets"):
        made("rnn", **settings)


def test_forget_bias_and_chrono_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="expected forget_bias or chrono, came both"):
        InitialiseRecipe(forget_bias=1.0, chrono=100)


def test_a_fused_initialisation_would_be_found_out() -> None:
    """What the tests above must not let pass: the whole matrix drawn at once."""
    fused = torch.empty(4 * HIDDEN, INPUT)
    torch.nn.init.xavier_uniform_(fused)
    block = fused[:HIDDEN]
    assert float(block.var()) != pytest.approx(2 / sum(block.shape), rel=0.3)
    torch.nn.init.orthogonal_(fused)
    assert float((block @ block.T - torch.eye(HIDDEN)).abs().max()) > 0.5
