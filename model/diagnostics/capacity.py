"""Memory capacity: how many of the numbers that went in can be read off the state, linearly.

Axes: T time, B batch, I input, F features of a state, K delays.
"""

import torch
from torch import Tensor

from model.diagnostics.watch import watched
from model.stack import Stack

_WASHED_OUT = 100
_STEPS, _SEQUENCES = 400, 16
_RIDGE = 1e-8


def memory_capacity(states_TBF: Tensor, signal_TB: Tensor, delays: int) -> Tensor:
    """How well each delayed input is reconstructed: r^2(k) for k = 0 to `delays` - 1, `[K]`; the capacity is their sum.

    One linear map for each delay is fitted on the first half of the sequences, and r^2 is the squared correlation on
    the other half, so that many features cannot pretend. For a white signal the sum over all k is at most F.

    Args:
        states_TBF: States, after their start has been washed out.
        signal_TB: What went in at each of these steps, white noise.
        delays: K, less than T.

    Source: Jaeger 2001, "Short term memory in echo state networks", with the bound of proposition 2; he counts from
    k = 1.
    """
    late_TBF = states_TBF[delays - 1 :]
    steps = len(late_TBF)
    # Delay k of step t is the signal at t - k.
    past_TBK = torch.stack([signal_TB[delays - 1 - k :][:steps] for k in range(delays)], dim=-1)
    half = states_TBF.shape[1] // 2
    learnt, seen = ((late_TBF[:, rows], past_TBK[:, rows]) for rows in (slice(half), slice(half, None)))
    x, y = (one.flatten(0, 1) for one in learnt)
    mean_x, mean_y = x.mean(dim=0), y.mean(dim=0)
    x, y = x - mean_x, y - mean_y
    gram = x.T @ x
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean() + torch.finfo(gram.dtype).tiny)
    map_FK = torch.linalg.solve(gram, x.T @ y)
    read, true = (seen[0].flatten(0, 1) - mean_x) @ map_FK, seen[1].flatten(0, 1) - mean_y
    return _squared_correlation(read, true)


def driven_states(stack: Stack, x_TBI: Tensor) -> tuple[list[Tensor], Tensor]:
    """The memories of a stack that is driven by noise instead of by its task.

    The noise is uniform and white, one number a step. It goes in along the direction in which the task's own inputs vary
    most, around their mean, and with as much variance as they have there.

    Args:
        stack: In double precision.
        x_TBI: Inputs of its task.

    Returns:
        States `[T, B, F]` of every layer and the signal `[T, B]`, without their start.
    """
    inputs_NI = x_TBI.flatten(0, 1)
    mean_I = inputs_NI.mean(dim=0)
    _, spread, axes = torch.linalg.svd(inputs_NI - mean_I, full_matrices=False)
    along_I = axes[0] * spread[0] / len(inputs_NI) ** 0.5
    signal_TB = 2 * torch.rand(
        _WASHED_OUT + _STEPS, _SEQUENCES, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    signal_TB = (signal_TB - 1) * 3**0.5  # variance 1
    with torch.no_grad(), watched(stack) as layers:
        stack(mean_I + signal_TB.unsqueeze(-1) * along_I, stack.initial_state(_SEQUENCES))
    return [layer.memory_TBU[_WASHED_OUT:] for layer in layers], signal_TB[_WASHED_OUT:]


def _squared_correlation(a_NK: Tensor, b_NK: Tensor) -> Tensor:
    a, b = a_NK - a_NK.mean(dim=0), b_NK - b_NK.mean(dim=0)
    found = (a * b).sum(dim=0).square() / (a.square().sum(dim=0) * b.square().sum(dim=0))
    return found.nan_to_num(0.0)  # a map to a constant reads nothing
