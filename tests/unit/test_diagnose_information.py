"""Mutual information where it is known."""

import math

import pytest
import torch
from torch import Tensor

from model.diagnostics.information import (
    autoregression,
    autoregression_information,
    gaussian_information,
    nearest_neighbour_information,
    principal,
)

RNG = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=RNG, dtype=torch.float64)


def correlated(rho: float, count: int) -> tuple[Tensor, Tensor]:
    x_N = normal(count)
    return x_N, rho * x_N + math.sqrt(1 - rho**2) * normal(count)


@pytest.mark.parametrize("rho", [0.0, 0.5, -0.9])
def test_two_correlated_normal_numbers_share_what_the_formula_says(rho: float) -> None:
    x_N, y_N = correlated(rho, 2000)
    truth = -0.5 * math.log(1 - rho**2)
    assert gaussian_information(x_N[:, None], y_N[:, None]) == pytest.approx(truth, abs=0.04)
    assert nearest_neighbour_information(x_N, y_N) == pytest.approx(truth, abs=0.06)


def test_vectors_share_the_sum_over_their_canonical_correlations_in_any_coordinates() -> None:
    pairs = [correlated(rho, 5000) for rho in (0.8, 0.3)]
    x_ND, y_ND = (torch.stack(side, dim=1) for side in zip(*pairs, strict=True))
    truth = -0.5 * (math.log(1 - 0.8**2) + math.log(1 - 0.3**2))
    assert gaussian_information(x_ND @ normal(2, 2), y_ND @ normal(2, 2) + 7) == pytest.approx(
        truth, abs=0.04
    )


def test_of_independent_vectors_the_normal_estimate_is_off_by_the_known_bias() -> None:
    count = 500
    found = [gaussian_information(normal(count, 5), normal(count, 4)) for _ in range(40)]
    assert sum(found) / len(found) == pytest.approx(5 * 4 / (2 * count), rel=0.2)


def test_neighbours_see_a_dependence_without_correlation_and_the_normal_estimate_does_not() -> None:
    x_N = normal(1000)
    y_N = x_N.square() + 0.1 * normal(1000)
    assert gaussian_information(x_N[:, None], y_N[:, None]) < 0.02
    assert nearest_neighbour_information(x_N, y_N) > 1


def test_neighbours_do_not_mind_the_scale_of_either_side() -> None:
    x_N, y_N = correlated(0.7, 1000)
    known = nearest_neighbour_information(x_N, y_N)
    assert nearest_neighbour_information(x_N / 1000 + 3, y_N * 1000) == pytest.approx(known)


@pytest.mark.parametrize("lag", [1, 2, 4, 8])
def test_both_estimates_find_what_an_autoregression_shares_with_its_past(lag: int) -> None:
    process_TB = autoregression(0.8, lag + 1, 4000)
    now, past = process_TB[-1], process_TB[0]
    truth = autoregression_information(0.8, lag)
    assert truth == pytest.approx(-0.5 * math.log(1 - 0.8 ** (2 * lag)))
    assert gaussian_information(now[:, None], past[:, None]) == pytest.approx(truth, abs=0.03)
    assert nearest_neighbour_information(now[:2000], past[:2000]) == pytest.approx(truth, abs=0.06)


def test_a_side_that_never_moves_shares_nothing() -> None:
    assert nearest_neighbour_information(normal(300), torch.ones(300).double()) == pytest.approx(0, abs=1e-9)
    assert gaussian_information(normal(300, 2), torch.ones(300, 2).double()) == 0


def test_an_autoregression_has_variance_one_from_its_first_step_on() -> None:
    process_TB = autoregression(0.9, 30, 5000)
    torch.testing.assert_close(process_TB.std(dim=1), torch.ones(30).double(), rtol=0.05, atol=0)


def test_main_directions_hold_the_variance_and_leave_out_what_has_none() -> None:
    flat_ND = normal(500, 2) @ normal(2, 10)
    assert principal(flat_ND).shape == (500, 2)
    torch.testing.assert_close(principal(flat_ND).var(dim=0).sum(), flat_ND.var(dim=0).sum())
    assert principal(normal(500, 40)).shape == (500, 16)
