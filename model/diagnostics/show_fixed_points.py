"""The chapter on fixed points."""

import math
from typing import Any

import torch
from torch import Tensor

from model.diagnostics.chapter import Chapter
from model.diagnostics.fixed_points import FixedPoint, closed_form, fixed_points, flat, settled, step_of
from model.diagnostics.pictures import COLOURS, FAINT, INK, canvas, svg
from model.diagnostics.watch import Layer, memory

_CANDIDATES = 48
_JACOBIANS = 4000
"""Points times numbers of a state, at most: eigenvalues take the cube of the second."""


def fixed_points_chapter(layers: list[Layer]) -> Chapter:
    """Where every layer comes to rest when its input stays what it is on average."""
    figure, axes = canvas(len(layers), 2, height=3.3)
    numbers: dict[str, Any] = {}
    rows: list[tuple[str, ...]] = [
        (
            "layer",
            "candidates",
            "kind",
            "speed",
            "spectral radius",
            "growing directions",
            "closed form off by",
        )
    ]
    for k, layer in enumerate(layers):
        points = found_in(layer)
        numbers[f"layer{k}"] = [_numbers(layer, point) for point in points]
        rows += [(str(k), *_row(one)) for one in numbers[f"layer{k}"]]
        draw_states(
            axes[k][0], layer.memory_TBU.flatten(0, 1), [_memory(layer, one) for one in points], points
        )
        draw_eigenvalues(axes[k][1], points[0])
        axes[k][0].set_title(f"layer {k}: states")
        axes[k][1].set_title(f"layer {k}: eigenvalues at the first point")
    return Chapter(
        "fixed_points",
        "Where it comes to rest",
        "Many stable points are discrete memories, one is a network that forgets everything in the end, and eigenvalues close "
        "to 1 are directions in which it forgets slowly.",
        numbers,
        svg(figure),
        f"Each layer alone, its input held at its mean. From {_CANDIDATES} visited states, every other one after 1000 steps under that "
        "input, the speed 1/2 |F(s) - s|² was minimised "
        "(Sussillo & Barak 2013); a point whose speed is not 0 is slow, not fixed. A point is stable if the spectral radius of "
        "the Jacobian of F in (h, C) is below 1. The brief's C* = i C~ / (1 - f) holds in every fixed point, but finds none, "
        "since its gates depend on h*; and its condition f < 1 is always met, by unstable points too.",
        tuple(rows),
    )


def kind_of(point: FixedPoint) -> str:
    """What a point is, in a word."""
    if not point.at_rest:
        return "slow"
    return "stable" if point.radius < 1 else "unstable"


def found_in(layer: Layer) -> list[FixedPoint]:
    """Fixed points of a layer under its mean input, from states that it visited."""
    visited_NS = torch.cat([flat(state) for state in layer.states[1:]]).detach()
    chosen = torch.linspace(0, len(visited_NS) - 1, _CANDIDATES).long()
    most = max(3, min(24, _JACOBIANS // visited_NS.shape[1]))
    step, candidates = step_of(layer.cell, _mean(layer), layer.zone), visited_NS[chosen]
    candidates[::2] = settled(step, candidates[::2])
    return fixed_points(step, candidates, most)


def draw_states(axis: Any, visited_NU: Tensor, at_PU: list[Tensor], points: list[FixedPoint]) -> None:
    """Visited memories and fixed points, in the plane in which the memories vary most."""
    mean_U = visited_NU.mean(dim=0)
    _, _, directions = torch.linalg.svd(visited_NU - mean_U, full_matrices=False)
    seen = (visited_NU[:: max(1, len(visited_NU) // 1500)] - mean_U) @ directions[:2].T
    axis.plot(*seen.T, ".", color=FAINT, markersize=3, zorder=1)
    for kind, mark, colour in (
        ("stable", "o", COLOURS[0]),
        ("unstable", "x", COLOURS[1]),
        ("slow", "+", INK),
    ):
        chosen = [at_U for at_U, point in zip(at_PU, points, strict=True) if kind_of(point) == kind]
        if chosen:
            placed = (torch.stack(chosen) - mean_U) @ directions[:2].T
            axis.plot(*placed.T, mark, color=colour, label=kind, zorder=2)
    axis.set_xlabel("first main direction of C")
    axis.set_ylabel("second main direction")
    axis.legend()


def draw_eigenvalues(axis: Any, point: FixedPoint) -> None:
    """Eigenvalues of one point, and the circle within which disturbances die out."""
    round_the_circle = torch.linspace(0, 2 * math.pi, 200)
    axis.plot(round_the_circle.cos(), round_the_circle.sin(), color=INK, linewidth=0.8)
    axis.plot(point.eigenvalues_S.real, point.eigenvalues_S.imag, ".", markersize=4)
    axis.set_aspect("equal", adjustable="datalim")
    axis.set_xlabel("real part")
    axis.set_ylabel("imaginary part")


def _mean(layer: Layer) -> Tensor:
    return layer.x_TBI.flatten(0, 1).mean(dim=0)


def _memory(layer: Layer, point: FixedPoint) -> Tensor:
    sizes = [part.shape[-1] for part in layer.states[0]]
    return memory(type(layer.states[0])(*torch.split(point.state_S, sizes)))


def _numbers(layer: Layer, point: FixedPoint) -> dict[str, Any]:
    closed = closed_form(layer.cell, _mean(layer), point.state_S)
    off = None if closed is None else float((closed - _memory(layer, point)).abs().max())
    return {
        "candidates": point.candidates,
        "kind": kind_of(point),
        "speed": point.speed,
        "radius": point.radius,
        "unstable": point.unstable,
        "closed_form_off": off,
        "memory": _memory(layer, point).tolist(),
    }


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    off = "no such form" if one["closed_form_off"] is None else f"{one['closed_form_off']:.1e}"
    numbers = (f"{one['speed']:.0e}", f"{one['radius']:.4f}", str(one["unstable"]))
    return (str(one["candidates"]), one["kind"], *numbers, off)
