"""Fixed points where they are known: of a linear map, of a parabola that has none, and of the flip-flop."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from model.diagnostics.fixed_points import closed_form, fixed_points, flat, jacobian, settled, step_of
from model.diagnostics.flip_flop import by_hand, pulses
from model.model_recipe import ZoneoutRecipe
from model.over_time import unroll
from model.zoneout import zoneout
from tests.cells import SMALL, random_inputs, random_state, small

BITS = 3
REST = 0.99536
"""Where a unit of the flip-flop is at rest: c = tanh(4 tanh(c))."""


def candidates(count: int) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    cell_BH = 3 * torch.rand(count, BITS, generator=draw, dtype=torch.float64) - 1.5
    cell_BH[0] = 0
    return torch.cat([torch.tanh(cell_BH), cell_BH], dim=1)


def still() -> Tensor:
    return torch.zeros(BITS, dtype=torch.float64)


def test_a_linear_map_has_the_fixed_point_and_the_eigenvalues_of_its_matrix() -> None:
    matrix = torch.tensor([[0.5, -0.8], [0.8, 0.5]], dtype=torch.float64)
    shift = torch.tensor([1.0, 2.0], dtype=torch.float64)
    (point,) = fixed_points(lambda s: s @ matrix.T + shift, torch.randn(10, 2).double())
    torch.testing.assert_close(point.state_S, torch.linalg.solve(torch.eye(2).double() - matrix, shift))
    assert point.radius == pytest.approx(0.89**0.5)
    assert point.at_rest
    assert point.unstable == 0
    assert point.candidates == 10


def test_disturbances_that_turn_while_they_grow_make_a_point_unstable() -> None:
    matrix = torch.tensor([[0.0, -1.2], [1.2, 0.0]], dtype=torch.float64)
    (point,) = fixed_points(lambda s: s @ matrix.T, torch.randn(4, 2).double())
    assert point.radius == pytest.approx(1.2)
    assert point.unstable == 2


def test_where_there_is_no_fixed_point_the_slowest_point_is_found_and_called_slow() -> None:
    for point in fixed_points(
        lambda s: s + s.square() + 0.01, torch.linspace(-1, 1, 8).double().unsqueeze(1)
    ):
        assert not point.at_rest
        assert point.speed == pytest.approx(0.5 * 0.01**2, rel=0.05)
        assert point.state_S.item() == pytest.approx(0, abs=0.03)


def test_the_flip_flop_by_hand_holds_the_last_pulse_of_every_channel() -> None:
    inputs, targets = pulses(200, 8, BITS)
    cell = by_hand(BITS)
    with torch.no_grad():
        outputs, _ = unroll(cell, inputs, cell.initial_state(8))
    assert (outputs.sign() == targets).all()
    assert 0.05 < (inputs != 0).double().mean() < 0.15
    changed = (targets[1:] != targets[:-1]) & (inputs[1:] == 0)
    assert not changed.any()


def test_the_flip_flop_has_a_stable_fixed_point_for_each_of_its_eight_memories_and_19_others() -> None:
    cell = by_hand(BITS)
    points = fixed_points(step_of(cell, still()), candidates(500))
    assert all(point.at_rest for point in points)
    # Each unit is at rest at its two ends or, unstably, in the middle: 3^3 points, as many unstable directions as middles.
    assert Counter(point.unstable for point in points) == {0: 8, 1: 12, 2: 6, 3: 1}
    for point in points:
        middles = int((point.state_S[BITS:].abs() < 1e-6).sum())
        assert point.unstable == middles
        assert point.state_S[BITS:].abs().max().item() == pytest.approx(
            0 if middles == BITS else REST, abs=1e-4
        )
        assert point.radius == pytest.approx(2.5 if middles else 0.50773, abs=1e-4)
    memories = {tuple(point.state_S[BITS:].sign().int().tolist()) for point in points if point.radius < 1}
    assert len(memories) == 8


def test_the_closed_form_holds_in_every_fixed_point_the_unstable_ones_too_and_nowhere_else() -> None:
    cell = by_hand(BITS)
    for point in fixed_points(step_of(cell, still()), candidates(50)):
        closed = closed_form(cell, still(), point.state_S)
        assert closed is not None
        torch.testing.assert_close(closed, point.state_S[BITS:], rtol=0, atol=1e-9)
    elsewhere = candidates(5)[3]
    closed = closed_form(cell, still(), elsewhere)
    assert closed is not None
    assert (closed - elsewhere[BITS:]).abs().max() > 0.1


def test_the_closed_form_of_a_coupled_cell_is_its_candidate_and_a_gru_has_none() -> None:
    cell = small("coupled")
    x_I, state = random_inputs(cell).detach(), random_state(cell, 1)
    gates = cell.gates(cell.inputs(x_I.unsqueeze(0)), state.hidden, state)
    closed = closed_form(cell, x_I, flat(state)[0].detach())
    assert closed is not None
    torch.testing.assert_close(closed, gates.candidate[0].detach())
    gru = small("gru")
    assert closed_form(gru, random_inputs(gru).detach(), flat(random_state(gru, 1))[0].detach()) is None


@pytest.mark.parametrize("name", SMALL)
def test_the_step_and_its_jacobian_are_those_of_the_cell(name: str) -> None:
    torch.manual_seed(2)
    cell = small(name)
    x_I, state = random_inputs(cell).detach(), random_state(cell, 1)
    step, s_S = step_of(cell, x_I), flat(state)[0].detach()
    _, after = cell.step(x_I.unsqueeze(0), state)
    torch.testing.assert_close(step(s_S), flat(after)[0])
    expected = torch.autograd.functional.jacobian(step, s_S)
    torch.testing.assert_close(jacobian(step, s_S), expected)


def test_zoneout_moves_no_fixed_point_and_slows_what_goes_there() -> None:
    cell = by_hand(BITS)
    zone = zoneout(cell, ZoneoutRecipe(hidden=0.2, cell=0.2), training=False)
    (plain,), (zoned,) = (
        fixed_points(step_of(cell, still(), how), torch.full((4, 2 * BITS), 0.9).double())
        for how in (None, zone)
    )
    torch.testing.assert_close(zoned.state_S, plain.state_S)
    assert plain.radius < zoned.radius < 1


def test_states_that_are_left_alone_settle_where_it_is_stable() -> None:
    step = step_of(by_hand(BITS), still())
    where = settled(step, candidates(20)[1:], steps=200)
    torch.testing.assert_close(
        where[:, BITS:].abs(), torch.full((19, BITS), REST).double(), rtol=0, atol=1e-4
    )
