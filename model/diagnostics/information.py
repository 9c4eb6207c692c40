"""Mutual information, I(X; Y), from samples; by two estimators that go wrong in different ways.

Axes: N samples, D numbers of a sample.
"""

import math

import torch
from torch import Tensor

_KEPT = 0.99
_MOST = 16


def gaussian_information(x_ND: Tensor, y_ND: Tensor) -> float:
    """What the two would share if they were jointly normal: -1/2 sum log(1 - rho_k^2), nats.

    rho_k are the canonical correlations (Hotelling 1936). A lower bound on what normal marginals share; blind to any
    dependence without correlation. With independent samples it is too high by about D_x D_y / 2N.
    """
    bases = [_whitened(one) for one in (x_ND, y_ND)]
    rho = torch.linalg.svdvals(bases[0].T @ bases[1]).clamp(0, 1)
    return float(-0.5 * torch.log1p(-rho.square()).sum())


def nearest_neighbour_information(x_ND: Tensor, y_ND: Tensor, neighbours: int = 4) -> float:
    """What the two share, whatever their distribution, nats; a little below 0 now and then if it is nothing.

    Works by distances, all N^2 of them, and needs few dimensions.

    Args:
        x_ND: Samples, D small; a vector `[N]` is D = 1.
        y_ND: As many.
        neighbours: k; more of them scatter less and are biased more.

    Source: Kraskov, Stögbauer & Grassberger 2004, equation 8 (their first algorithm).
    """
    apart = [_distances(one) for one in (x_ND, y_ND)]
    count = len(x_ND)
    # The k-th neighbour in both at once, the sample itself not counted, and how many are nearer in one alone.
    radius_N1 = torch.maximum(*apart).kthvalue(neighbours + 1, dim=1, keepdim=True).values
    nearer = [(one < radius_N1).sum(dim=1).clamp(min=1).double() for one in apart]  # itself makes the +1
    neighbourhood = sum(torch.digamma(one).mean() for one in nearer)
    return _digamma(neighbours) + _digamma(count) - float(neighbourhood)


def principal(x_ND: Tensor) -> Tensor:
    """The samples along their main directions: as many as hold 99 % of the variance, at most 16; `[N, D']`."""
    centred = x_ND - x_ND.mean(dim=0)
    u_ND, s_D, _ = torch.linalg.svd(centred, full_matrices=False)
    held = s_D.square().cumsum(0) / s_D.square().sum()
    kept = min(_MOST, int((held < _KEPT).sum()) + 1)
    main_ND: Tensor = u_ND[:, :kept] * s_D[:kept]
    return main_ND


def autoregression(coefficient: float, steps: int, sequences: int, seed: int = 0) -> Tensor:
    """Samples of x_t = a x_{t-1} + noise with variance 1, from its first step on, `[T, B]`."""
    noise_TB = torch.randn(
        steps, sequences, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    values = [noise_TB[0]]
    for noise_B in noise_TB[1:]:
        values.append(coefficient * values[-1] + math.sqrt(1 - coefficient**2) * noise_B)
    return torch.stack(values)


def autoregression_information(coefficient: float, lag: int) -> float:
    """What x_t and x_{t-k} of such a process share: -1/2 log(1 - a^2k), nats."""
    return -0.5 * math.log1p(-(coefficient ** (2 * lag)))


def _whitened(x_ND: Tensor) -> Tensor:
    """An orthonormal basis of what the samples span about their mean; directions without variance are left out."""
    centred = x_ND - x_ND.mean(dim=0)
    u_ND, s_D, _ = torch.linalg.svd(centred, full_matrices=False)
    basis_ND: Tensor = u_ND[:, s_D > 1e-9 * s_D[0]]
    return basis_ND


def _distances(x_ND: Tensor) -> Tensor:
    x = x_ND.reshape(len(x_ND), -1)
    x = x / x.std(dim=0).clamp(min=torch.finfo(x.dtype).tiny)  # the joint neighbourhood compares both sides
    return torch.cdist(x, x, p=float("inf"))


def _digamma(count: int) -> float:
    return float(torch.digamma(torch.tensor(float(count), dtype=torch.float64)))
