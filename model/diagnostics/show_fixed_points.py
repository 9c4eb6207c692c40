"""The chapter on fixed points.

Axes: N visited states, S numbers of a state, U units.
"""

import math
from dataclasses import dataclass
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
_ROWS = 6
_DRAWN = 1500
_MARKS = {"stable": ("o", COLOURS[0]), "unstable": ("x", COLOURS[1]), "slow": ("+", INK)}
_HEADING = (
    "layer",
    "candidates",
    "kind",
    "speed",
    "away",
    "radius",
    "growing",
    "closed form off",
)


@dataclass(frozen=True)
class Found:
    """A point of one layer."""

    point: FixedPoint
    memory_U: Tensor
    away: float
    """Distance to the nearest visited memory, in standard deviations of the visited ones from their mean."""
    closed_form_off: float | None
    """Largest difference between its memory and what the brief's formula gives there."""

    @property
    def kind(self) -> str:
        """What it is, in a word."""
        if not self.point.at_rest:
            return "slow"
        return "stable" if self.point.radius < 1 else "unstable"

    @property
    def numbers(self) -> dict[str, Any]:
        """For the report."""
        return {
            "candidates": self.point.candidates,
            "kind": self.kind,
            "speed": self.point.speed,
            "away": self.away,
            "radius": self.point.radius,
            "unstable": self.point.unstable,
            "closed_form_off": self.closed_form_off,
            "memory": self.memory_U.tolist(),
        }

    @property
    def row(self) -> tuple[str, ...]:
        """For the page."""
        point = self.point
        off = "no such form" if self.closed_form_off is None else f"{self.closed_form_off:.0e}"
        where = (f"{point.speed:.0e}", f"{self.away:.1f}", f"{point.radius:.4f}")
        return (str(point.candidates), self.kind, *where, str(point.unstable), off)


def fixed_points_chapter(layers: list[Layer]) -> Chapter:
    """Where every layer comes to rest when its input stays what it is on average."""
    figure, axes = canvas(len(layers), 2, height=3.3)
    numbers: dict[str, Any] = {}
    rows: list[tuple[str, ...]] = [_HEADING]
    for k, layer in enumerate(layers):
        points = found_in(layer)
        numbers[f"layer{k}"] = [one.numbers for one in points]
        rows += [(str(k), *one.row) for one in points[:_ROWS]]
        _draw_states(axes[k][0], layer.memory_TBU.flatten(0, 1), points)
        _draw_eigenvalues(axes[k][1], points[0].point)
        axes[k][0].set_title(f"layer {k}: states")
        axes[k][1].set_title(f"layer {k}: eigenvalues at its first point")
    return Chapter(
        "fixed_points",
        "Where it comes to rest",
        "Many stable points are discrete memories, one is a network that forgets everything in the end, and eigenvalues close "
        "to 1 are directions in which it forgets slowly.",
        numbers,
        svg(figure),
        f"Each layer alone, its input held at its mean. From {_CANDIDATES} visited states, half of them after 1000 more steps, the "
        "speed 1/2 |F(s) - s|² was minimised (Sussillo & Barak 2013); where it does not vanish the point is slow, not fixed. A "
        "fixed point is stable if the spectral radius of the Jacobian of F in (h, C) is below 1: no disturbance is growing. Away: from the nearest visited "
        "state, in standard deviations; what is far away hardly matters, and the picture leaves out what lies far outside. The formula "
        "C* = i C~ / (1 - f) holds in every fixed point but finds none, since its gates depend on h*; and its condition f < 1 "
        f"is always met, in unstable points too. The table has {_ROWS} points a layer at most, the numbers have all.",
        tuple(rows),
    )


def found_in(layer: Layer) -> list[Found]:
    """Points of a layer under its mean input, from states that it visited; those at rest first."""
    visited_NS = torch.cat([flat(state) for state in layer.states[1:]]).detach()
    chosen = torch.linspace(0, len(visited_NS) - 1, _CANDIDATES).long()
    x_I = layer.x_TBI.flatten(0, 1).mean(dim=0)
    step, candidates = step_of(layer.cell, x_I, layer.zone), visited_NS[chosen]
    candidates[::2] = settled(step, candidates[::2])
    most = max(3, min(24, _JACOBIANS // visited_NS.shape[1]))
    points = fixed_points(step, candidates, most)
    return [_placed(layer, x_I, point) for point in sorted(points, key=lambda point: not point.at_rest)]


def _placed(layer: Layer, x_I: Tensor, point: FixedPoint) -> Found:
    kind, sizes = type(layer.states[0]), [part.shape[-1] for part in layer.states[0]]
    memory_U = memory(kind(*torch.split(point.state_S, sizes)))
    visited_NU = layer.memory_TBU.flatten(0, 1)
    spread = (visited_NU - visited_NU.mean(dim=0)).square().sum(dim=1).mean().sqrt()
    away = (visited_NU - memory_U).square().sum(dim=1).min().sqrt() / spread
    closed = closed_form(layer.cell, x_I, point.state_S)
    off = None if closed is None else float((closed - memory_U).abs().max())
    return Found(point, memory_U, float(away), off)


def _draw_states(axis: Any, visited_NU: Tensor, points: list[Found]) -> None:
    """Visited memories and the points among them, in the plane in which the memories vary most."""
    mean_U = visited_NU.mean(dim=0)
    _, _, directions = torch.linalg.svd(visited_NU - mean_U, full_matrices=False)
    plane_U2 = torch.nn.functional.pad(directions[:2], (0, 0, 0, max(0, 2 - len(directions)))).T
    seen = (visited_NU[:: max(1, len(visited_NU) // _DRAWN)] - mean_U) @ plane_U2
    axis.plot(*seen.T, ".", color=FAINT, markersize=3, zorder=1)
    reach = 2.5 * seen.abs().max(dim=0).values
    for kind, (mark, colour) in _MARKS.items():
        places = [(one.memory_U - mean_U) @ plane_U2 for one in points if one.kind == kind]
        near = [place for place in places if (place.abs() <= reach).all()]
        if near:
            axis.plot(*torch.stack(near).T, mark, color=colour, label=kind, zorder=2)
    axis.set_xlabel("first main direction of C")
    axis.set_ylabel("second main direction of C")
    if axis.get_legend_handles_labels()[0]:
        axis.legend()


def _draw_eigenvalues(axis: Any, point: FixedPoint) -> None:
    """Eigenvalues of one point, and the circle within which disturbances die out."""
    round_the_circle = torch.linspace(0, 2 * math.pi, 200)
    axis.plot(round_the_circle.cos(), round_the_circle.sin(), color=INK, linewidth=0.8)
    axis.plot(point.eigenvalues_S.real, point.eigenvalues_S.imag, ".", markersize=4)
    axis.set_aspect("equal", adjustable="datalim")
    axis.set_xlabel("real part")
    axis.set_ylabel("imaginary part")
