"""A stack that is watched does what it does unwatched, and what is kept is what the equations say."""

import pytest
import torch
from torch import Tensor

from model.diagnostics.watch import OPENING, watched
from model.layer import Conditions
from model.model_recipe import ZoneoutRecipe
from model.stack import Stack
from tests.cells import SMALL, random_inputs, random_state, small

T, B = 5, 3


def stack_of(name: str, conditions: Conditions | None = None) -> Stack:
    """One layer with the small cell of that name."""
    cell = small(name)
    stack = Stack(cell.input_size, cell.hidden_size, 1, conditions=conditions or Conditions()).double()
    stack.cells[0] = cell
    return stack.eval()


@pytest.mark.parametrize("name", SMALL)
def test_a_watched_stack_gives_what_it_gives_unwatched(name: str) -> None:
    torch.manual_seed(1)
    stack = stack_of(name)
    (cell,) = stack.by_layer()
    x_TBI, state = random_inputs(cell, T, B), (random_state(cell, B),)
    expected, after = stack(x_TBI, state)
    with watched(stack) as layers:
        output, last = stack(x_TBI, state)
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    for part, wanted in zip((*last[0], *layers[0].states[-1]), (*after[0], *after[0]), strict=True):
        torch.testing.assert_close(part, wanted, rtol=1e-12, atol=1e-12)
    assert len(layers[0].states) == T + 1
    layers.clear()
    stack(x_TBI, state)
    assert layers == []  # nobody watches any more


@pytest.mark.parametrize(
    "name", ["lstm", "peephole", "coupled", "projected", "highway-time", "multiplicative"]
)
def test_what_a_cell_keeps_is_its_forget_gate(name: str) -> None:
    stack = stack_of(name)
    (cell,) = stack.by_layer()
    with watched(stack) as layers:
        stack(random_inputs(cell, T, B), (random_state(cell, B),))
    torch.testing.assert_close(layers[0].kept_TBU, layers[0].gates["forget"])


def test_a_gru_keeps_by_its_update_gate_and_a_network_without_gates_keeps_nothing() -> None:
    for name, expected in (("gru", "update"), ("rnn", None)):
        stack = stack_of(name)
        (cell,) = stack.by_layer()
        with watched(stack) as layers:
            stack(random_inputs(cell, T, B), (random_state(cell, B),))
        wanted = torch.zeros_like(layers[0].kept_TBU) if expected is None else layers[0].gates[expected]
        torch.testing.assert_close(layers[0].kept_TBU, wanted)


def test_a_clipped_cell_keeps_nothing_of_what_lies_beyond_its_clip() -> None:
    stack = stack_of("projected, clipped")
    (cell,) = stack.by_layer()
    with watched(stack) as layers:
        stack(random_inputs(cell, 50, B), (random_state(cell, B),))
    inside = layers[0].memory_TBU.abs() < 0.4
    assert 0 < inside.double().mean() < 1
    torch.testing.assert_close(layers[0].kept_TBU, layers[0].gates["forget"] * inside)


def test_zoneout_in_expectation_keeps_p_and_of_the_rest_what_the_gate_lets() -> None:
    stack = stack_of("lstm", Conditions(zoneout=ZoneoutRecipe(hidden=0.1, cell=0.3)))
    (cell,) = stack.by_layer()
    x_TBI, state = random_inputs(cell, T, B), (random_state(cell, B),)
    with watched(stack) as layers:
        output, _ = stack(x_TBI, state)
    torch.testing.assert_close(output, stack(x_TBI, state)[0])
    torch.testing.assert_close(layers[0].kept_TBU, 0.3 + 0.7 * layers[0].gates["forget"])


@pytest.mark.parametrize("name", SMALL)
def test_every_gate_that_opens_is_seen_open(name: str) -> None:
    stack = stack_of(name)
    (cell,) = stack.by_layer()
    with watched(stack) as layers:
        stack(random_inputs(cell, T, B), (random_state(cell, B),))
    assert set(layers[0].gates) == set(cell.gate_names)
    for gate, value in layers[0].gates.items():
        low = 0 if gate in OPENING else -1
        assert value.shape == (T, B, cell.units)
        if name != "rnn, relu":
            assert ((value >= low) & (value <= 1)).all()


def test_the_peephole_s_output_gate_is_the_one_that_makes_the_hidden_state() -> None:
    stack = stack_of("peephole")
    (cell,) = stack.by_layer()
    with watched(stack) as layers:
        output, _ = stack(random_inputs(cell, T, B), (random_state(cell, B),))
    cells: Tensor = torch.stack([state.cell for state in layers[0].states[1:]])
    torch.testing.assert_close(output, layers[0].gates["output"] * torch.tanh(cells))
