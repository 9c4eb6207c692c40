"""The layers of a stack in a step graph: one operator each where that is exact for all of them, else a Scan each."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from export.draft import Draft
from export.fused import add_fused, operator_of
from export.observe import OBSERVED, add_means
from export.options import Options
from export.scan import LENGTHS64, add_last_steps, add_scan, observed_of
from export.single_step import add_single_step
from export.trace import one_step_statistics
from model.cells import CELLS
from model.cells.cell import Cell
from model.zoneout import Zone

Cells = Sequence[Cell[Any, Any]]


def state_parts(cells: Cells) -> dict[str, int]:
    """Sizes of the parts of the state, in the order they have in the row: layer0.hidden, layer0.cell, layer1..."""
    return {name: part.shape[1] for name, part in _initial(cells).items()}


def initial_row(cells: Cells) -> tuple[float, ...] | None:
    """The row of a session that has made no step; None: zeros."""
    row = [number for part in _initial(cells).values() for number in part[0].tolist()]
    return tuple(row) if any(row) else None


def recurrence_of(cells: Cells) -> str:
    """For people: which cell, how many layers."""
    kind = type(cells[0])
    name = next((name for name, made in CELLS.items() if made is kind), kind.__name__)
    return f"{name} x {len(cells)}"


def statistics_of(cells: Cells, zones: Sequence[Zone | None]) -> tuple[str, ...]:
    """What `add_layers` observes, in order."""
    return tuple(
        f"layer{layer}.{name}"
        for layer, (cell, zone) in enumerate(zip(cells, zones, strict=True))
        for name in one_step_statistics(cell, zone)
    )


def add_layers(
    draft: Draft, cells: Cells, zones: Sequence[Zone | None], x_TBI: str, lengths: str, options: Options
) -> str:
    """Add the layers; they read the parts of `state_parts` and leave the next ones under `next_of` names.

    One form for all: operator and Scan round differently.

    Args:
        draft: Where the nodes go.
        cells: One a layer, the first fed by `x_TBI`.
        zones: What zoneout makes of a step of each, None: nothing.
        x_TBI: Name of the inputs `[T, B, I]`.
        lengths: Name of the steps of each row `[B]`, int32; a row's state stops at its length.
        options: Where the graph is to run, and whether it is observed: then `OBSERVED` `[B, K]` is left, too.

    Returns:
        Name of the outputs of the last layer `[B, T, H]`; they say nothing beyond a row's length.

    Raises:
        ExportError: a step cannot be traced, or does what has no form in ONNX here.
    """
    if options.single_step:
        return add_single_step(draft, cells, zones, x_TBI, observe=options.observe)
    operators = [
        operator_of(cell, options) if zone is None else None for cell, zone in zip(cells, zones, strict=True)
    ]
    layers = [f"layer{layer}" for layer in range(len(cells))]
    fused = [operator for operator in operators if operator is not None]
    if len(fused) == len(cells):
        for layer, cell, operator in zip(layers, cells, fused, strict=True):
            parts = [f"{layer}.{part}" for part in cell.initial_state(1)._asdict()]
            x_TBI = add_fused(draft, operator, parts, layer, x_TBI, lengths)
        return _turned(draft, x_TBI)
    add_last_steps(draft, lengths)
    for layer, cell, zone in zip(layers, cells, zones, strict=True):
        x_TBI = add_scan(draft, cell, zone, layer, x_TBI, observe=options.observe)
    if options.observe:
        add_means(draft, list(map(observed_of, layers)), LENGTHS64, OBSERVED)
    return _turned(draft, x_TBI)


def _turned(draft: Draft, value: str) -> str:
    draft.node("Transpose", [value], [f"{value}.turned"], perm=[1, 0, 2])
    return f"{value}.turned"


def _initial(cells: Cells) -> dict[str, Tensor]:
    return {
        f"layer{layer}.{name}": part.detach()
        for layer, cell in enumerate(cells)
        for name, part in cell.initial_state(1)._asdict().items()
    }
