"""How open the gates are, how long the cells remember, and what the gates have to do with each other.

Axes: T time, B batch, U units.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

LOW, HIGH = 0.1, 0.9
"""A gate outside of these is saturated. Source: Karpathy, Johnson & Fei-Fei 2015."""
BINS = 20


class Openness(NamedTuple):
    """What one gate of one layer did, over all steps, sequences and units."""

    mean: float
    std: float
    low: float
    """Share of values below `LOW`."""
    high: float
    """Share of values above `HIGH`."""


def openness(gate_TBU: Tensor) -> Openness:
    """Of a gate `[T, B, U]` in (0, 1)."""
    low, high = ((beyond).double().mean() for beyond in (gate_TBU < LOW, gate_TBU > HIGH))
    return Openness(float(gate_TBU.mean()), float(gate_TBU.std(correction=0)), float(low), float(high))


def saturation(gate_TBU: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of the steps that each unit spends below `LOW` and above `HIGH`, `[U]` each."""
    return (gate_TBU < LOW).double().mean(dim=(0, 1)), (gate_TBU > HIGH).double().mean(dim=(0, 1))


def half_lives(kept_TBU: Tensor) -> Tensor:
    """Steps after which half of what a unit holds is left, if nothing is added: ln 2 / -mean ln f, `[U]`.

    The mean of the logarithm, not of the gate: what is left after k steps is a product. A unit that keeps everything
    has inf, one that ever keeps nothing has 0. The time scale, after which 1/e is left, is half-life / ln 2.
    """
    return math.log(2) / kept_TBU.log().mean(dim=(0, 1)).abs()  # of what is at most 1; -0 would be -inf


def correlation(a_TBU: Tensor, b_TBU: Tensor) -> Tensor:
    """Pearson's coefficient of two quantities of each unit, over steps and sequences; NaN where one is constant, `[U]`."""
    a, b = (one.flatten(0, 1) - one.flatten(0, 1).mean(dim=0) for one in (a_TBU, b_TBU))
    return (a * b).mean(dim=0) / (a.square().mean(dim=0) * b.square().mean(dim=0)).sqrt()


def bernoulli_entropy(gate_TBU: Tensor) -> Tensor:
    """Mean entropy of a switch that is on with the gate's probability, `[U]`, bits: 1 half open, 0 open or shut."""
    p = gate_TBU
    return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)).mean(dim=(0, 1)) / math.log(2)


def histogram_entropy(gate_TBU: Tensor) -> Tensor:
    """Entropy of the values that each unit's gate takes, in `BINS` equal bins, `[U]`, bits: 0 if it never moves.

    At most log2(BINS) = 4.3.
    """
    values_NU = gate_TBU.flatten(0, 1)
    places = (values_NU * BINS).long().clamp(0, BINS - 1)
    counts_BU = torch.zeros(BINS, values_NU.shape[1], dtype=torch.float64)
    counts_BU.scatter_add_(0, places, torch.ones_like(places, dtype=torch.float64))
    shares = counts_BU / len(values_NU)
    return -torch.xlogy(shares, shares).sum(dim=0) / math.log(2)
