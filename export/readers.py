"""Networks that have all of their input: they start at their initial state, and may read from both ends.

Axes: T time, B batch, I input, H hidden, n one part of the state.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from export.draft import Draft, as_float32
from export.fused import Operator, add_fused, operator_of
from export.layers import add_layers
from export.options import Options
from export.row import next_of
from export.scan import LENGTHS64, add_last_steps, add_scan
from model.bidirectional import Bidirectional
from model.cells.gated import Gated
from model.stack import Stack
from model.zoneout import Zone, zoneout

BATCH = "batch_2"
"""Name of the shape `[B, 1]`."""


class Read(NamedTuple):
    """Names of what a network came to."""

    outputs_BTH: str
    """They say nothing beyond a row's length."""
    ends: tuple[tuple[dict[str, str], ...], ...]
    """For each layer, of each of its readers, the parts of the state `[B, n]` where it ended: the reader from the end
    ends at a row's first step."""


def add_reader(
    draft: Draft, network: Stack | Bidirectional, x_TBI: str, lengths: str, options: Options
) -> Read:
    """Add all layers of a network.

    Args:
        draft: Where the nodes go.
        network: In evaluation.
        x_TBI: Name of the inputs `[T, B, I]`.
        lengths: Name of the steps of each row `[B]`, int32.
        options: Where the graph is to run.

    Raises:
        ExportError: a step cannot be traced, or does what has no form in ONNX here.
    """
    draft.node("Unsqueeze", [lengths, draft.weight("batch.axis", np.array([1]))], ["lengths_B1"])
    draft.node("Shape", ["lengths_B1"], [BATCH])
    if isinstance(network, Bidirectional):
        return _add_both_ways(draft, network, x_TBI, lengths, options)
    cells = list(network.by_layer())
    zones = [_zone(cell, network) for cell in cells]
    layers = [f"layer{layer}" for layer in range(len(cells))]
    for layer, cell in zip(layers, cells, strict=True):
        _add_start(draft, layer, cell)
    outputs_BTH = add_layers(draft, cells, zones, x_TBI, lengths, options)
    ends = tuple((_ends(layer, cell),) for layer, cell in zip(layers, cells, strict=True))
    return Read(outputs_BTH, ends)


def readers_of(network: Bidirectional) -> list[Gated[Any, Any]]:
    """The cells of all layers, from the start before from the end."""
    return [cell for pair in network.by_layer() for cell in pair]


def _add_both_ways(draft: Draft, network: Bidirectional, x_TBI: str, lengths: str, options: Options) -> Read:
    cells = readers_of(network)
    found = [operator_of(cell, options) if _zone(cell, network) is None else None for cell in cells]
    # One form for all: operator and Scan round differently.
    operators = found if all(operator is not None for operator in found) else [None] * len(cells)
    add_last_steps(draft, lengths)
    ends, steps = [], iter(zip(cells, operators, strict=True))
    for layer in range(len(cells) // 2):
        outputs, states = [], []
        for name, from_end in (("start", False), ("end", True)):
            reader = f"layer{layer}.{name}"
            cell, operator = next(steps)
            _add_start(draft, reader, cell)
            zone = _zone(cell, network)
            outputs.append(_add_one(draft, cell, operator, zone, reader, x_TBI, lengths, from_end=from_end))
            states.append(_ends(reader, cell))
        x_TBI = f"layer{layer}.both_TBH"
        draft.node("Concat", outputs, [x_TBI], axis=2)
        ends.append(tuple(states))
    draft.node("Transpose", [x_TBI], ["both_BTH"], perm=[1, 0, 2])
    return Read("both_BTH", tuple(ends))


def _add_one(
    draft: Draft,
    cell: Gated[Any, Any],
    operator: Operator | None,
    zone: Zone | None,
    reader: str,
    x_TBI: str,
    lengths: str,
    *,
    from_end: bool,
) -> str:
    """One reader of one layer; the name of its outputs `[T, B, H]`."""
    if operator is not None:
        parts = list(_parts(reader, cell))
        return add_fused(draft, operator, parts, reader, x_TBI, lengths, from_end=from_end)
    if from_end:  # what lies beyond the end of a row stays there: it is read last
        draft.node("ReverseSequence", [x_TBI, LENGTHS64], [f"{reader}.x_TBI"], time_axis=0, batch_axis=1)
        x_TBI = f"{reader}.x_TBI"
    output_TBH = add_scan(draft, cell, zone, reader, x_TBI, observe=False)
    if not from_end:
        return output_TBH
    draft.node(
        "ReverseSequence", [output_TBH, LENGTHS64], [f"{reader}.turned_TBH"], time_axis=0, batch_axis=1
    )
    return f"{reader}.turned_TBH"


def _zone(cell: Gated[Any, Any], network: Stack | Bidirectional) -> Zone | None:
    return zoneout(cell, network.conditions.zoneout, training=False)


def _add_start(draft: Draft, reader: str, cell: Gated[Any, Any]) -> None:
    """Add the state that every row starts from, as `export.row` names its parts."""
    for name, part_1n in _parts(reader, cell).items():
        draft.node("Expand", [draft.weight(f"{name}.start", as_float32(part_1n)), BATCH], [name])


def _parts(reader: str, cell: Gated[Any, Any]) -> Mapping[str, Tensor]:
    return {f"{reader}.{part}": values for part, values in cell.initial_state(1)._asdict().items()}


def _ends(reader: str, cell: Gated[Any, Any]) -> dict[str, str]:
    return {part: next_of(f"{reader}.{part}") for part in cell.initial_state(1)._asdict()}
