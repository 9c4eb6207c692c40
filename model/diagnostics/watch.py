"""A stack, run a step at a time, with everything kept that its cells do.

Axes: T time, B batch, I input, U units.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.cells.gated import Gated
from model.cells.peephole import PeepholeLSTM
from model.stack import Stack, StackState
from model.zoneout import Zone, zoneout

OPENING = ("input", "forget", "output", "transform", "reset", "update")
"""Names of gates that open between 0 and 1, in any cell; what else a gate may be is a candidate in (-1, 1)."""


@dataclass(frozen=True)
class Layer:
    """What one layer did in a run of T steps; the states belong to the graph of the run."""

    cell: Gated[Any, Any]
    x_TBI: Tensor
    gates: dict[str, Tensor]
    """By name, `[T, B, U]` each: those of `OPENING` that the cell has, and the candidate."""
    states: tuple[Any, ...]
    """T + 1 of them: before the first step, and after every step."""
    zone: Zone | None
    """What the stack's zoneout makes of a step."""
    kept_TBU: Tensor
    """How much of its memory every unit keeps over each step, d m_t / d m_{t-1} with the gates held where they are.

    The forget gate of an LSTM, the update gate of a GRU, 0 in a network without gates.
    """

    @property
    def memories(self) -> list[Tensor]:
        """What goes from step to step with the gates' leave, T + 1 times `[B, U]`: the cell state, or the hidden one."""
        return [memory(state) for state in self.states]

    @property
    def memory_TBU(self) -> Tensor:
        """The same after every step, no part of the graph."""
        return torch.stack(self.memories[1:]).detach()


def memory(state: Any) -> Tensor:
    """The part of a state that its gates keep: the cell state where there is one."""
    held: Tensor = state.cell if "cell" in state._fields else state.hidden
    return held


@contextmanager
def watched(stack: Stack) -> Iterator[list[Layer]]:
    """While this is open the stack runs a step at a time, and its last run stands in the list, a layer each.

    The model around it need not know: its own `forward` makes the inputs and reads the outputs. The stack is run as in
    evaluation: zoneout takes its expectation, and nothing is dropped.
    """
    seen: list[Layer] = []

    def run(x_TBI: Tensor, state: StackState) -> tuple[Tensor, StackState]:
        seen.clear()
        for cell, before in zip(stack.by_layer(), state, strict=True):
            layer, x_TBI = _run(cell, x_TBI, before, zoneout(cell, stack.conditions.zoneout, training=False))
            seen.append(layer)
        return x_TBI, tuple(layer.states[-1] for layer in seen)

    vars(stack)["forward"] = run  # found before the method of the class
    try:
        yield seen
    finally:
        del vars(stack)["forward"]


def _run(cell: Gated[Any, Any], x_TBI: Tensor, state: Any, zone: Zone | None) -> tuple[Layer, Tensor]:
    states, outputs, kept, gates = [state], [], [], []
    for projected_t in cell.inputs(x_TBI):
        opened = cell.gates(projected_t, state.hidden, state)
        output, after = cell.update(opened, state)
        if zone is not None:
            after = zone(state, after)
            output = after.hidden
        kept.append(_kept(cell, opened, state, zone))
        gates.append(_by_name(cell, opened, after))
        outputs.append(output)
        states.append(after)
        state = after
    by_name = {name: torch.stack([one[name] for one in gates]) for name in gates[0]}
    return Layer(cell, x_TBI.detach(), by_name, tuple(states), zone, torch.stack(kept)), torch.stack(outputs)


def _kept(cell: Gated[Any, Any], gates: Any, before: Any, zone: Zone | None) -> Tensor:
    """Units do not mix in `update`: the derivative of the sum of all is that of each unit by itself."""
    held = type(gates)(*(gate.detach() for gate in gates))
    at = type(before)(*(part.detach().requires_grad_() for part in before))
    with torch.enable_grad():
        _, after = cell.update(held, at)
        if zone is not None:
            after = zone(at, after)
        total = memory(after).sum()
    if not total.requires_grad:
        return torch.zeros_like(memory(before))
    return torch.autograd.grad(total, memory(at))[0]


def _by_name(cell: Gated[Any, Any], gates: Any, after: Any) -> dict[str, Tensor]:
    seen = (*OPENING, "candidate")
    found = {name: gate.detach() for name, gate in gates._asdict().items() if name in seen}
    if isinstance(cell, PeepholeLSTM):  # its output gate sees the new cell: only now is it open
        found["output"] = torch.sigmoid(gates.output_unopened + cell.peephole_output * after.cell).detach()
    return found
