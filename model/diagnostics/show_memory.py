"""The chapters on memory: what the state still knows of itself, and of what went in."""

from typing import Any

import torch
from torch import Tensor

from model.diagnostics.capacity import driven_states, memory_capacity
from model.diagnostics.chapter import Chapter
from model.diagnostics.gates import half_lives
from model.diagnostics.information import (
    autoregression,
    autoregression_information,
    gaussian_information,
    nearest_neighbour_information,
    principal,
)
from model.diagnostics.pictures import COLOURS, INK, canvas, side_by_side, svg
from model.diagnostics.watch import Layer
from model.stack import Stack

LAGS = (1, 2, 4, 8, 16, 32, 64)
_COEFFICIENT = 0.9
_PAIRS, _NEAR_PAIRS, _UNITS = 4000, 800, 8
DELAYS = 100


def information_chapter(layers: list[Layer]) -> Chapter:
    """I(C_t; C_{t-k}) of every layer, and the same estimators where the truth is known."""
    steps, sequences, _ = layers[0].memory_TBU.shape
    lags = [lag for lag in LAGS if lag <= steps // 2]
    figure, axes = side_by_side(len(layers) + 1, height=3.0, sharex=True)
    known = _known(lags, steps, sequences)
    numbers: dict[str, Any] = {"lags": lags, "autoregression": known}
    for k, layer in enumerate(layers):
        found = _of_layer(layer, lags)
        numbers[f"layer{k}"] = found
        axes[k].plot(lags, found["gaussian"], "o-", label="all units, normal", markersize=4)
        axes[k].plot(lags, found["gaussian_floor"], ":", color=COLOURS[0], label="same, of strangers")
        axes[k].plot(lags, found["nearest_median"], "s-", label="a unit, median", markersize=4)
        axes[k].plot(lags, found["nearest_most"], "^-", label="a unit, most", markersize=4)
        axes[k].set_title(f"layer {k}")
    axes[-1].plot(lags, known["truth"], color=INK, label="truth")
    axes[-1].plot(lags, known["gaussian"], "o", label="normal", markersize=4)
    axes[-1].plot(lags, known["nearest"], "s", label="neighbours", markersize=4)
    axes[-1].set_title(f"AR(1), a = {_COEFFICIENT}")
    for axis in axes:
        axis.set_xscale("log", base=2)
        axis.set_xticks(lags, map(str, lags))
        axis.set_xlabel("k (steps)")
        axis.legend()
    axes[0].set_ylabel("I(C[t]; C[t-k]) (nats)")
    return Chapter(
        "information",
        "What the state says of its past",
        "Where a curve meets its dotted floor, the estimator sees no memory any more; at the right, dots off the line are the "
        "error that these many samples make.",
        numbers,
        svg(figure),
        "All units together: normal estimate, -1/2 sum log(1 - rho^2) over canonical correlations of the main directions (at most "
        "16, 99 % of the variance); its floor pairs states of different sequences. Single units: nearest neighbours (Kraskov et "
        f"al. 2004, k = 4, {_NEAR_PAIRS} pairs), {_UNITS} units spread over the half-lives. The right picture has both on a process "
        "whose information is -1/2 log(1 - a^2k), with as many steps and sequences.",
    )


def _of_layer(layer: Layer, lags: list[int]) -> dict[str, list[float]]:
    memory_TBU = layer.memory_TBU
    steps, rows, units = memory_TBU.shape
    main_TBD = principal(memory_TBU.flatten(0, 1)).reshape(steps, rows, -1)
    by_half_life = half_lives(layer.kept_TBU).argsort(descending=True)
    chosen = by_half_life[torch.linspace(0, units - 1, min(_UNITS, units)).long()]
    found: dict[str, list[float]] = {
        name: [] for name in ("gaussian", "gaussian_floor", "nearest_median", "nearest_most")
    }
    for lag in lags:
        now, past = _pairs(main_TBD, lag, _PAIRS)
        stranger = _pairs(main_TBD.roll(1, dims=1), lag, _PAIRS)[1]
        found["gaussian"].append(gaussian_information(now, past))
        found["gaussian_floor"].append(gaussian_information(now, stranger))
        one_now, one_past = _pairs(memory_TBU[..., chosen], lag, _NEAR_PAIRS)
        each = [nearest_neighbour_information(*pair) for pair in zip(one_now.T, one_past.T, strict=True)]
        found["nearest_median"].append(float(torch.tensor(each).median()))
        found["nearest_most"].append(max(each))
    return found


def _known(lags: list[int], steps: int, sequences: int) -> dict[str, list[float]]:
    process_TB1 = autoregression(_COEFFICIENT, steps, sequences).unsqueeze(-1)
    found: dict[str, list[float]] = {"truth": [], "gaussian": [], "nearest": []}
    for lag in lags:
        found["truth"].append(autoregression_information(_COEFFICIENT, lag))
        found["gaussian"].append(gaussian_information(*_pairs(process_TB1, lag, _PAIRS)))
        found["nearest"].append(nearest_neighbour_information(*_pairs(process_TB1, lag, _NEAR_PAIRS)))
    return found


def _pairs(values_TBD: Tensor, lag: int, most: int) -> tuple[Tensor, Tensor]:
    """States and those `lag` steps before them, `[N, D]` each, N at most `most`."""
    now, past = values_TBD[lag:].flatten(0, 1), values_TBD[:-lag].flatten(0, 1)
    chosen = torch.linspace(0, len(now) - 1, min(most, len(now))).long()
    return now[chosen], past[chosen]


def capacity_chapter(stack: Stack, layers: list[Layer]) -> Chapter:
    """Jaeger's memory capacity of every layer."""
    states, signal_TB = driven_states(stack, layers[0].x_TBI)
    figure, axes = canvas(height=2.9)
    numbers: dict[str, Any] = {}
    rows: list[tuple[str, ...]] = [("layer", "capacity (steps)", "units", "last delay with r² above 0.5")]
    for k, states_TBU in enumerate(states):
        read_K = memory_capacity(states_TBU, signal_TB, DELAYS)
        above = (read_K > 0.5).nonzero()
        units = states_TBU.shape[-1]
        numbers[f"layer{k}"] = {"capacity": float(read_K.sum()), "units": units, "r2": read_K.tolist()}
        last = str(int(above.max())) if len(above) else "none"
        rows.append((str(k), f"{float(read_K.sum()):.1f}", str(units), last))
        axes[0][0].plot(read_K, label=f"layer {k}: {float(read_K.sum()):.1f} steps")
    axes[0][0].set_ylim(0, 1.02)
    axes[0][0].set_xlabel("delay k (steps)")
    axes[0][0].set_ylabel("r² of reconstructing the input")
    axes[0][0].legend()
    return Chapter(
        "capacity",
        "Memory capacity",
        "The area under a curve is how many past inputs can be read off the state at once; it can never be more than the units.",
        numbers,
        svg(figure),
        "Jaeger 2001: the network is driven with white noise along the direction in which its task's inputs vary most, and a linear "
        "map for each delay is fitted on half of the sequences and judged on the other half. A trained network has other things "
        "to do than to remember noise: the figure tells networks apart and grades none.",
        tuple(rows),
    )
