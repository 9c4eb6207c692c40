"""Numbers about gates, on gates of which they are known."""

import math

import pytest
import torch

from model.diagnostics.gates import (
    BINS,
    bernoulli_entropy,
    correlation,
    half_lives,
    histogram_entropy,
    openness,
    saturation,
)

RNG = torch.Generator().manual_seed(0)
UNIFORM_TBU = torch.rand(400, 20, 3, generator=RNG, dtype=torch.float64)


def constant(value: float) -> torch.Tensor:
    return torch.full((10, 4, 2), value, dtype=torch.float64)


def test_the_openness_of_uniform_values_is_that_of_the_uniform_distribution() -> None:
    found = openness(UNIFORM_TBU)
    assert found == pytest.approx((0.5, 1 / math.sqrt(12), 0.1, 0.1), abs=0.01)


def test_saturation_counts_the_steps_of_each_unit_alone() -> None:
    gate_TBU = torch.tensor([[[0.05, 0.95, 0.5]], [[0.05, 0.5, 0.5]]])
    low_U, high_U = saturation(gate_TBU)
    assert low_U.tolist() == [1, 0, 0]
    assert high_U.tolist() == [0, 0.5, 0]


@pytest.mark.parametrize(("kept", "steps"), [(0.5, 1), (0.5**0.1, 10), (1 / (1 + math.exp(-1)), 2.2128)])
def test_the_half_life_of_a_constant_gate_is_known(kept: float, steps: float) -> None:
    assert half_lives(constant(kept)).tolist() == pytest.approx([steps] * 2, rel=1e-4)


def test_the_half_life_is_that_of_the_product_and_not_of_the_mean() -> None:
    gate_TBU = torch.tensor([0.9, 0.1]).repeat(50).view(100, 1, 1).double()
    left = gate_TBU.prod(dim=0).item()
    assert 0.5 ** (100 / half_lives(gate_TBU).item()) == pytest.approx(left, rel=1e-9, abs=0)


def test_who_keeps_all_lives_for_ever_and_who_keeps_nothing_not_at_all() -> None:
    assert half_lives(constant(1.0))[0] == math.inf
    assert half_lives(constant(0.0))[0] == 0


def test_correlation_is_numpy_s_and_unknown_where_one_side_never_moves() -> None:
    other_TBU = 0.3 * UNIFORM_TBU + torch.rand(UNIFORM_TBU.shape, generator=RNG, dtype=torch.float64)
    expected = [
        float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])
        for a, b in zip(UNIFORM_TBU.unbind(-1), other_TBU.unbind(-1), strict=True)
    ]
    assert correlation(UNIFORM_TBU, other_TBU).tolist() == pytest.approx(expected)
    assert correlation(UNIFORM_TBU, -UNIFORM_TBU).tolist() == pytest.approx([-1] * 3)
    assert correlation(constant(0.5), torch.rand(10, 4, 2).double()).isnan().all()


def test_the_entropy_of_a_switch_is_one_bit_half_open_and_none_open_or_shut() -> None:
    assert bernoulli_entropy(constant(0.5)).tolist() == pytest.approx([1, 1])
    assert bernoulli_entropy(constant(0.0)).tolist() == bernoulli_entropy(constant(1.0)).tolist() == [0, 0]
    # The mean over p of the binary entropy is 1 / (2 ln 2) bits.
    assert bernoulli_entropy(UNIFORM_TBU).tolist() == pytest.approx([0.5 / math.log(2)] * 3, abs=0.01)


def test_the_entropy_of_values_is_that_of_their_histogram() -> None:
    assert histogram_entropy(constant(0.7)).tolist() == [0, 0]
    assert histogram_entropy(UNIFORM_TBU).tolist() == pytest.approx([math.log2(BINS)] * 3, abs=0.01)
    assert histogram_entropy(torch.tensor([0.0, 1.0]).view(2, 1, 1)).tolist() == [1]
