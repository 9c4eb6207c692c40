"""The tour's pictures of rest: fixed points, by formula and in a network that learned to hold three bits."""

from typing import Any

import torch
from torch import Tensor, nn

from model.cells.lstm import LSTM
from model.diagnostics.fixed_points import FixedPoint, fixed_points, flat, settled, step_of
from model.diagnostics.flip_flop import pulses
from model.diagnostics.pictures import COLOURS, FAINT, INK, canvas
from model.over_time import unroll

BITS, UNITS = 3, 24


def closed_form() -> Any:
    """C = i C~ / (1 - f) of one unit whose candidate sees its own output: an equation, not a solution."""
    figure, axes = canvas(1, 2, height=3.0, sharey=True)
    c = torch.linspace(-1.5, 1.5, 300)
    for axis, gain in zip(axes[0], (0.8, 4.0), strict=True):
        axis.plot(c, torch.tanh(gain * torch.tanh(c)), label="i C~ / (1 - f)")
        axis.plot(c, c, color=INK, linewidth=0.8, label="C")
        rest = [0.0] if gain < 1 else [-0.9954, 0.0, 0.9954]
        for at in rest:
            stable = gain < 1 or at != 0
            axis.plot(at, at, "o" if stable else "x", color=COLOURS[0 if stable else 1])
        axis.set_title(f"candidate tanh({gain:g} h): {len(rest)} point{'s' * (len(rest) > 1)} of rest")
        axis.set_xlabel("C")
    axes[0][0].set_ylabel("both sides of the equation")
    axes[0][0].legend()
    return figure


def flip_flop() -> Any:
    """Where a network that has learned the flip-flop comes to rest when nothing comes in."""
    cell, head = _learned()
    inputs, _ = pulses(100, 24, BITS, seed=9)
    with torch.no_grad():
        states, state = [], cell.initial_state(24)
        for x_BI in inputs:
            _, state = unroll(cell, x_BI.unsqueeze(0), state)
            states.append(flat(state))
    visited_TBS = torch.stack(states)
    step = step_of(cell, torch.zeros(BITS, dtype=torch.float64))
    candidates = visited_TBS[20::5].flatten(0, 1)
    points = fixed_points(step, torch.cat([candidates, settled(step, candidates[::4])]), most=64)
    figure, axes = canvas(1, 2, height=3.4)
    _draw(axes[0][0], head(visited_TBS[..., :UNITS]).detach(), points, head)
    radii = [[point.radius for point in points if point.at_rest and point.unstable == k] for k in range(4)]
    for mark, colour, label, kinds in (
        ("o", COLOURS[0], "stable", [0]),
        ("x", COLOURS[1], "unstable", [1, 2, 3]),
    ):
        places = [(kind, radius) for kind in kinds for radius in radii[kind]]
        axes[0][1].plot(*zip(*places, strict=True), mark, color=colour, label=label)
    axes[0][1].legend(loc="lower right")
    axes[0][1].axhline(1, color=INK, linewidth=0.8)
    axes[0][1].set_xticks(range(4))
    axes[0][1].set_xlabel("directions in which disturbances grow")
    axes[0][1].set_ylabel("spectral radius")
    axes[0][1].set_title(f"{len(radii[0])} stable points, {sum(map(len, radii[1:]))} unstable")
    return figure


def _draw(axis: Any, outputs_TBN: Tensor, points: list[FixedPoint], head: nn.Linear) -> None:
    """The three outputs as a cube that is seen from a corner."""
    slanted = torch.tensor([[0.9, -0.25], [0.35, 0.35], [0.0, 0.95]], dtype=torch.float64)
    for path_TN in outputs_TBN.transpose(0, 1)[:8]:
        axis.plot(*(path_TN @ slanted).T, color=FAINT, linewidth=0.7, zorder=1)
    for stable, mark in ((True, "o"), (False, "x")):
        chosen = [point.state_S[:UNITS] for point in points if point.at_rest and (point.radius < 1) == stable]
        if chosen:
            placed = head(torch.stack(chosen)).detach() @ slanted
            axis.plot(*placed.T, mark, color=COLOURS[0 if stable else 1], zorder=2)
    axis.set_aspect("equal")
    axis.set_xlabel("0.9 y1 + 0.35 y2")
    axis.set_ylabel("0.95 y3 + 0.35 y2 - 0.25 y1")
    axis.set_title("outputs y: the corners of a cube")


def _learned() -> tuple[LSTM, nn.Linear]:
    """An LSTM that holds the last pulse of three channels, and what reads it."""
    cell, head = LSTM(BITS, UNITS).double(), nn.Linear(UNITS, BITS).double()
    parameters = [*cell.parameters(), *head.parameters()]
    adam = torch.optim.Adam(parameters, lr=1e-2)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 400)
    for update in range(400):
        inputs, targets = pulses(60, 32, BITS, seed=update)
        outputs, _ = unroll(cell, inputs, cell.initial_state(32))
        adam.zero_grad()
        (head(outputs) - targets).square().mean().backward()
        adam.step()
        slower.step()
    return cell, head
