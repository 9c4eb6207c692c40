"""Where a recurrence comes to rest: fixed points of its step, and whether it stays there.

Axes: B batch (candidates), I input, S numbers of a state, U units.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.cells.gated import Gated
from model.zoneout import Zone

_ITERATIONS = 600
_RATE = 0.05
_CLOSING_IN = 100
_DAMPED = 1e6
_AT_REST = 1e-18
"""Largest speed of a fixed point."""
_LIKELY_ONE, _ONE = 1e-2, 1e-3
"""Largest difference in any number, as a share of the largest, of two points that are one: before and after closing in."""

Step = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FixedPoint:
    """A state that a step leaves as it is, or hardly changes."""

    state_S: Tensor
    """All parts of the state, one after the other."""
    speed: float
    """1/2 |F(s) - s|^2."""
    eigenvalues_S: Tensor
    """Of the Jacobian of the step in all parts of the state; complex."""
    candidates: int
    """How many came here."""

    @property
    def at_rest(self) -> bool:
        """Whether it is a fixed point; else it is a slow point."""
        return self.speed <= _AT_REST

    @property
    def radius(self) -> float:
        """The spectral radius: below 1 small disturbances die out, and the point is stable."""
        return float(self.eigenvalues_S.abs().max())

    @property
    def unstable(self) -> int:
        """In how many directions disturbances grow."""
        return int((self.eigenvalues_S.abs() > 1).sum())


def fixed_points(step: Step, states_BS: Tensor, most: int = 32) -> list[FixedPoint]:
    """Minimise the speed of a step, from states that were visited.

    Gradient descent on q(s) = 1/2 |F(s) - s|^2 from every candidate, then Levenberg's method from where they came. It
    proves that points are there, never that there are no more.

    Args:
        step: F, as `step_of` makes it.
        states_BS: Candidates.
        most: How many points are taken to their end; the Jacobian of each has S^2 numbers.

    Returns:
        Different points, those first that most candidates reached.

    Source: Sussillo & Barak 2013.
    """
    likely = _different([(s_S, 1) for s_S in _descend(step, states_BS)], _LIKELY_ONE)
    found = _different([(_closed_in(step, s_S), count) for s_S, count in likely[:most]], _ONE)
    return [
        FixedPoint(s_S, float(_speed(step, s_S).detach()), torch.linalg.eigvals(jacobian(step, s_S)), count)
        for s_S, count in found
    ]


def step_of(cell: Gated[Any, Any], x_I: Tensor, zone: Zone | None = None) -> Step:
    """The step of a cell that reads the same at every step, from states `[..., S]` to states `[..., S]`."""
    projected = cell.inputs(x_I.unsqueeze(0))
    kind, sizes = _kind_and_sizes(cell)

    def step(s_BS: Tensor) -> Tensor:
        before = kind(*torch.split(s_BS.reshape(-1, sum(sizes)), sizes, dim=-1))
        gates = cell.gates(projected.expand(len(before.hidden), -1), before.hidden, before)
        _, after = cell.update(gates, before)
        return flat(after if zone is None else zone(before, after)).reshape(s_BS.shape)

    return step


@torch.no_grad()
def settled(step: Step, states_BS: Tensor, steps: int = 1000) -> Tensor:
    """Where the states are after this many steps: near what is stable, if the recurrence comes to rest at all."""
    for _ in range(steps):
        states_BS = step(states_BS)
    return states_BS


def flat(state: Any) -> Tensor:
    """All parts of a state side by side, `[..., S]`."""
    return torch.cat(tuple(state), dim=-1)


@torch.no_grad()
def closed_form(cell: Gated[Any, Any], x_I: Tensor, s_S: Tensor) -> Tensor | None:
    """The brief's C* = i C~ / (1 - f), with the gates as they are in a state, `[U]`; None: the cell has no such gates.

    It is no solution: the gates depend on h*, which depends on C*. It holds where a fixed point was found by other
    means, and f < 1, which the brief asks for, is always so: what decides is the spectral radius.
    """
    kind, sizes = _kind_and_sizes(cell)
    state = kind(*torch.split(s_S.unsqueeze(0), sizes, dim=-1))
    gates = cell.gates(cell.inputs(x_I.unsqueeze(0)), state.hidden, state)._asdict()
    if not {"forget", "candidate"} <= gates.keys():
        return None
    entering = gates.get("input", 1 - gates["forget"])
    value: Tensor = (entering * gates["candidate"] / (1 - gates["forget"]))[0]
    return value


def jacobian(step: Step, s_S: Tensor) -> Tensor:
    """dF/ds in one state, `[S, S]`: row k is the derivative of number k of the next state."""
    copies_SS = s_S.detach().repeat(len(s_S), 1).requires_grad_()
    with torch.enable_grad():
        (rows_SS,) = torch.autograd.grad(step(copies_SS).diagonal().sum(), copies_SS)
    return rows_SS


def _descend(step: Step, states_BS: Tensor) -> Tensor:
    s_BS = states_BS.detach().clone().requires_grad_()
    adam = torch.optim.Adam([s_BS], lr=_RATE)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(adam, _ITERATIONS)
    for _ in range(_ITERATIONS):
        (s_BS.grad,) = torch.autograd.grad(_speed(step, s_BS).sum(), s_BS)
        adam.step()
        slower.step()
    return s_BS.detach()


@torch.no_grad()
def _closed_in(step: Step, s_S: Tensor) -> Tensor:
    """Levenberg's method on F(s) - s = 0: Newton's where that helps, small steps downhill where it does not."""
    eye_SS, damping, tries = torch.eye(len(s_S), dtype=s_S.dtype), 1e-3, 0
    speed, (downhill_S, slopes_SS) = _speed(step, s_S), _slopes(step, s_S)
    while tries < _CLOSING_IN and damping < _DAMPED:
        there_S = s_S + torch.linalg.solve(slopes_SS + damping * eye_SS, downhill_S)
        slower = _speed(step, there_S)
        if slower < speed:
            s_S, speed, damping = there_S, slower, max(damping / 10, 1e-15)
            downhill_S, slopes_SS = _slopes(step, s_S)
        else:
            damping *= 10
        tries += 1
    return s_S


def _slopes(step: Step, s_S: Tensor) -> tuple[Tensor, Tensor]:
    """Minus the gradient of the speed, and the part of its second derivative that needs first derivatives alone."""
    slope_SS = jacobian(step, s_S) - torch.eye(len(s_S), dtype=s_S.dtype)
    return slope_SS.T @ (s_S - step(s_S)), slope_SS.T @ slope_SS


def _speed(step: Step, s_BS: Tensor) -> Tensor:
    return 0.5 * (step(s_BS) - s_BS).square().sum(dim=-1)


def _different(points: list[tuple[Tensor, int]], share: float) -> list[tuple[Tensor, int]]:
    """One of each, with all who came there, the most sought first."""
    found: list[tuple[Tensor, int]] = []
    for s_S, count in points:
        reach = share * max(1.0, float(s_S.abs().max()))
        same = [k for k, (other, _) in enumerate(found) if float((other - s_S).abs().max()) < reach]
        if same:
            found[same[0]] = (found[same[0]][0], found[same[0]][1] + count)
        else:
            found.append((s_S, count))
    return sorted(found, key=lambda one: -one[1])


def _kind_and_sizes(cell: Gated[Any, Any]) -> tuple[Any, list[int]]:
    like = cell.initial_state(1)
    return type(like), [part.shape[-1] for part in like]
