"""The equations of a cell as PyTorch sees them: its own three pieces, traced once.

Axes: T time, B batch, I input, P projected input.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, export

from export.errors import ExportError
from export.observe import side_by_side, statistics
from model.cells.cell import Cell
from model.zoneout import Zone

# Any sizes of 2 or more: PyTorch takes 0 and 1 for special.
_STEPS, _ROWS = 3, 5


@dataclass(frozen=True)
class TracedStep:
    """One step of a cell from its input on, as operations of PyTorch for any B."""

    graph: fx.Graph
    constants: dict[str, Tensor]
    """Weights, and tensors that were made on the way, by the name of their placeholder."""
    x: str
    """Placeholder of the input `[B, I]`."""
    state: tuple[str, ...]
    """Placeholders of the parts of the state `[B, n]`."""
    output: fx.Node
    """`[B, H]`"""
    after: tuple[fx.Node, ...]
    """The parts of the next state."""
    observed: fx.Node | None
    """`[B, K]`; None: nothing was asked for."""


@dataclass(frozen=True)
class Traced:
    """What a cell computes, as operations of PyTorch for any T and B."""

    graph: fx.Graph
    constants: dict[str, Tensor]
    """Weights, and tensors that were made on the way, by the name of their placeholder."""
    x: str
    """Placeholder of the inputs of all time steps `[T, B, I]`."""
    projected: str
    """Placeholder of one step's projected inputs `[B, P]`."""
    state: tuple[str, ...]
    """Placeholders of the parts of the state `[B, n]`."""
    all_projected: fx.Node
    """`inputs` of all time steps, `[T, B, P]`."""
    output: fx.Node
    """`[B, H]`, of one step."""
    after: tuple[fx.Node, ...]
    """The parts of the next state."""
    observed: fx.Node | None
    """`[B, K]`; None: nothing was asked for."""


class _Pieces(nn.Module):
    """Both parts of a cell's work side by side, so that one trace has them: what is hoisted, and the step."""

    def __init__(self, cell: Cell[Any, Any], zone: Zone | None, observe: bool) -> None:
        super().__init__()
        self.cell, self._zone, self._observe = cell, zone, observe
        self._state = type(cell.initial_state(1))

    def forward(self, x_TBI: Tensor, projected_BP: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        return self.cell.inputs(x_TBI), *self._results(projected_BP, parts)

    def _results(self, projected_BP: Tensor, parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
        output, gates, after = self.step(projected_BP, parts)
        observed = [side_by_side(statistics(gates, after))] if self._observe else []
        return output, *after, *observed

    def step(self, projected_BP: Tensor, parts: Sequence[Tensor]) -> tuple[Tensor, Any, Any]:
        """Output, gates and next state of one step, as `model.over_time.unroll` makes it."""
        state = self._state(*parts)
        gates = self.cell.gates(projected_BP, state.hidden, state)
        output, after = self.cell.update(gates, state)
        if self._zone is not None:
            after = self._zone(state, after)
            output = after.hidden
        return output, gates, after


class _Whole(_Pieces):
    """The same pieces, one after the other."""

    def forward(self, x_BI: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        return self._results(self.cell.inputs(x_BI), parts)


def trace(
    cell: Cell[Any, Any], zone: Zone | None, *, observe: bool = False, before: Sequence[Tensor] | None = None
) -> Traced:
    """Trace one step of a cell and what it does for all steps at once.

    Args:
        cell: Written in the style of `model.cells`; traced as in evaluation.
        zone: What zoneout makes of a step; None: nothing.
        observe: Trace `export.observe.statistics`, too.
        before: The parts of the state before a step, of one row `[...]`; None: as the initial state.

    Raises:
        ExportError: PyTorch cannot, as when a step branches on the numbers that it computes.
    """
    pieces = _Pieces(cell, zone, observe).eval()
    x_TBI = torch.zeros(_STEPS, _ROWS, cell.input_size)
    T, B = Dim("T"), Dim("B")
    with torch.no_grad():
        parts = tuple(cell.initial_state(1)) if before is None else [part.unsqueeze(0) for part in before]
        state = tuple(part.expand(_ROWS, *part.shape[1:]) for part in parts)
        arguments = (x_TBI, cell.inputs(x_TBI[0]), *(part.clone() for part in state))
        shapes = ({0: T, 1: B}, {0: B}, tuple({0: B} for _ in state))
        return _told_apart(_exported(pieces, arguments, shapes), observe)


def trace_step(cell: Cell[Any, Any], zone: Zone | None, *, observe: bool = False) -> TracedStep:
    """Trace a whole step of a cell; see `trace`.

    Raises:
        ExportError: PyTorch cannot.
    """
    whole, B = _Whole(cell, zone, observe).eval(), Dim("B")
    with torch.no_grad():
        state = tuple(part.expand(_ROWS, *part.shape[1:]).clone() for part in cell.initial_state(1))
        arguments = (torch.zeros(_ROWS, cell.input_size), *state)
        program = _exported(whole, arguments, ({0: B}, tuple({0: B} for _ in state)))
    x, *parts = program.graph_signature.user_inputs
    output, *after = _results_of(program)
    observed = after.pop() if observe else None
    return TracedStep(program.graph, constants_of(program), x, tuple(parts), output, tuple(after), observed)


def _exported(pieces: _Pieces, arguments: tuple[Tensor, ...], shapes: tuple[Any, ...]) -> ExportedProgram:
    try:
        return export(pieces, arguments, dynamic_shapes=shapes)
    except (RuntimeError, ValueError) as error:
        owner, first = type(pieces.cell).__name__, str(error).strip().splitlines()[0]
        raise ExportError(f"{owner}: PyTorch cannot trace its step: {first}") from error


def one_step_statistics(cell: Cell[Any, Any], zone: Zone | None) -> tuple[str, ...]:
    """Names of what is observed in a step of a cell."""
    pieces = _Pieces(cell, zone, observe=True).eval()
    with torch.no_grad():
        projected_BP = cell.inputs(torch.zeros(1, cell.input_size))
        _, gates, after = pieces.step(projected_BP, tuple(cell.initial_state(1)))
        return tuple(statistics(gates, after))


def constants_of(program: ExportedProgram) -> dict[str, Tensor]:
    """Weights, and tensors that were made on the way, by the name of their placeholder."""
    tensors = {**program.state_dict, **program.constants}
    specs = program.graph_signature.input_specs
    return {spec.arg.name: tensors[spec.target] for spec in specs if spec.target is not None}


def _told_apart(program: ExportedProgram, observe: bool) -> Traced:
    x, projected, *state = program.graph_signature.user_inputs
    all_projected, output, *after = _results_of(program)
    observed = after.pop() if observe else None
    return Traced(
        program.graph,
        constants_of(program),
        x,
        projected,
        tuple(state),
        all_projected,
        output,
        tuple(after),
        observed,
    )


def _results_of(program: ExportedProgram) -> list[fx.Node]:
    (results,) = next(node for node in program.graph.nodes if node.op == "output").args
    return list(results)
