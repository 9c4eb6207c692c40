"""The chapters on gates."""

import math
from typing import Any

import torch
from torch import Tensor

from model.diagnostics.chapter import Chapter
from model.diagnostics.gates import (
    BINS,
    HIGH,
    LOW,
    bernoulli_entropy,
    correlation,
    half_lives,
    histogram_entropy,
    openness,
    saturation,
)
from model.diagnostics.pictures import COLOURS, INK, canvas, side_by_side, svg
from model.diagnostics.watch import OPENING, Layer


def gate_chapters(layers: list[Layer]) -> list[Chapter]:
    """Everything that can be said of the gates of these layers; nothing of a network without gates."""
    if not any(name in OPENING for name in layers[0].gates):
        return []
    found = [_openness(layers), _saturation(layers), _half_lives(layers)]
    if {"input", "candidate"} <= layers[0].gates.keys():
        found.append(_correlation(layers))
    if "output" in layers[0].gates:
        found.append(_entropy(layers))
    return found


def opening(layer: Layer) -> dict[str, Tensor]:
    """Those of its gates that open between 0 and 1, by name."""
    return {name: gate for name, gate in layer.gates.items() if name in OPENING}


def _openness(layers: list[Layer]) -> Chapter:
    names = list(opening(layers[0]))
    figure, axes = canvas(len(layers), len(names), height=1.9, sharex=True, sharey="row")
    numbers: dict[str, Any] = {}
    rows: list[tuple[str, ...]] = [("layer", "gate", "mean", "std", f"below {LOW}", f"above {HIGH}")]
    for k, layer in enumerate(layers):
        for j, name in enumerate(names):
            found = openness(layer.gates[name])
            numbers.setdefault(f"layer{k}", {})[name] = found._asdict()
            rows.append((str(k), name, *(f"{number:.3f}" for number in found)))
            axes[k][j].hist(
                layer.gates[name].flatten().numpy(),
                bins=40,
                range=(0, 1),
                density=True,
                color=COLOURS[j % len(COLOURS)],
            )
            axes[k][j].axvline(found.mean, color=INK, linewidth=1)
            axes[k][j].set_title(f"layer {k}, {name}")
            axes[-1][j].set_xlabel("opening of the gate")
        axes[k][0].set_ylabel("density")
    return Chapter(
        "gates",
        "How open the gates are",
        "A heap at 0 or 1 is a switch, a heap in the middle a gate that has not made up its mind; the line is the mean.",
        numbers,
        svg(figure),
        "All units, steps and sequences together. That a mean forget gate above 0.5 is good is folklore: what counts is how "
        "long single units remember, see half-lives.",
        tuple(rows),
    )


def _saturation(layers: list[Layer]) -> Chapter:
    names = list(opening(layers[0]))
    figure, axes = canvas(len(layers), len(names), height=2.5, sharex=True, sharey=True)
    numbers: dict[str, Any] = {}
    for k, layer in enumerate(layers):
        for j, name in enumerate(names):
            low_U, high_U = saturation(layer.gates[name])
            numbers.setdefault(f"layer{k}", {})[name] = {"low": low_U.tolist(), "high": high_U.tolist()}
            axes[k][j].plot(high_U, low_U, ".", color=COLOURS[j % len(COLOURS)], alpha=0.6, markersize=4)
            axes[k][j].plot([0, 1], [1, 0], color=INK, linewidth=0.7)
            axes[k][j].set_title(f"layer {k}, {name}")
            axes[-1][j].set_xlabel(f"share of steps above {HIGH}")
        axes[k][0].set_ylabel(f"share of steps below {LOW}")
    return Chapter(
        "saturation",
        "Which units switch",
        "Each dot is a unit: near the diagonal it is always open or shut, near the origin it works in between, at the right "
        "end of a forget gate it remembers everything.",
        numbers,
        svg(figure),
        "After Karpathy, Johnson & Fei-Fei 2015.",
    )


def _half_lives(layers: list[Layer]) -> Chapter:
    figure, axes = canvas(height=2.9)
    numbers: dict[str, Any] = {}
    rows: list[tuple[str, ...]] = [
        ("layer", "median", "longest", "units above 10 steps", "units above 100 steps")
    ]
    for k, layer in enumerate(layers):
        steps_U = half_lives(layer.kept_TBU).sort(descending=True).values
        numbers[f"layer{k}"] = {
            "half_life": steps_U.tolist(),
            "time_scale": (steps_U / math.log(2)).tolist(),
            "median": float(steps_U.median()),
        }
        beyond = [f"{float((steps_U > steps).double().mean()):.1%}" for steps in (10, 100)]
        rows.append((str(k), f"{float(steps_U.median()):.2f}", f"{float(steps_U[0]):.1f}", *beyond))
        shares = torch.linspace(0, 100, len(steps_U))
        axes[0][0].plot(shares, steps_U, label=f"layer {k}", drawstyle="steps-post")
    axes[0][0].set_yscale("log")
    axes[0][0].set_xlabel("units, the longest memory first (percent)")
    axes[0][0].set_ylabel("half-life (steps)")
    axes[0][0].legend()
    return Chapter(
        "half_lives",
        "How long the cells remember",
        "A flat line is a layer with one time scale; a steep left end are the few units that carry something far.",
        numbers,
        svg(figure),
        "ln 2 / -mean ln f of each unit, in steps: after that many steps, half of what a cell holds is left if nothing is added "
        "and the gates go on as they do. The time scale, to 1/e, is 1.44 times as long. A forget bias of 1 begins at 2.2 steps. "
        "Source of the reading: Tallec & Ollivier 2018.",
        tuple(rows),
    )


def _correlation(layers: list[Layer]) -> Chapter:
    figure, axes = side_by_side(len(layers), height=2.4, sharey=True)
    numbers: dict[str, Any] = {}
    for k, layer in enumerate(layers):
        found_U = correlation(layer.gates["input"], layer.gates["candidate"])
        known_U = found_U[~found_U.isnan()]
        numbers[f"layer{k}"] = {
            "by_unit": found_U.tolist(),
            "mean_magnitude": float(known_U.abs().mean()),
            "beyond_half": float((known_U.abs() > 0.5).double().mean()),
        }
        axes[k].hist(known_U.numpy(), bins=40, range=(-1, 1), color=COLOURS[0])
        axes[k].set_title(f"layer {k}")
        axes[k].set_xticks([-1, -0.5, 0, 0.5, 1])
        axes[k].set_xlabel("correlation of i and candidate")
    axes[0].set_ylabel("units")
    return Chapter(
        "correlation",
        "Input gate and candidate",
        "Units near -1 or 1 have an input gate that says little which the candidate does not say; around 0 the two are apart.",
        numbers,
        svg(figure),
        "Pearson's coefficient of i and the candidate over all steps and sequences, a unit at a time. The coupled cell has "
        "no input gate and so no such picture.",
    )


def _entropy(layers: list[Layer]) -> Chapter:
    figure, axes = canvas(1, 2, height=2.4)
    numbers: dict[str, Any] = {}
    for k, layer in enumerate(layers):
        both = {
            "bernoulli": bernoulli_entropy(layer.gates["output"]),
            "histogram": histogram_entropy(layer.gates["output"]),
        }
        numbers[f"layer{k}"] = {
            name: {"by_unit": bits_U.tolist(), "mean": float(bits_U.mean())} for name, bits_U in both.items()
        }
        ranges = ((0, 1), (0, math.log2(BINS)))
        for axis, bits_U, span in zip(axes[0], both.values(), ranges, strict=True):
            axis.hist(bits_U.numpy(), bins=30, range=span, histtype="step", linewidth=1.5, label=f"layer {k}")
    axes[0][0].set_xlabel("mean entropy of a switch (bits)")
    axes[0][1].set_xlabel(f"entropy of its values, {BINS} bins (bits)")
    axes[0][0].set_ylabel("units")
    axes[0][1].legend(loc="upper left")
    return Chapter(
        "entropy",
        "How selective the output gate is",
        "Left at 0 are gates that are clearly open or shut at every step; right at 0 are gates that never move.",
        numbers,
        svg(figure),
        "Entropy(o) has two readings, and both are given: the mean entropy of a switch that is on with probability o, and the "
        "entropy of the values that o takes over time.",
    )
