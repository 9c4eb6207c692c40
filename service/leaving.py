"""What the sessions of a model take along when their server ends: records of its read-only planes, then of them.

So many rows in each record as fill `BLOCK_BYTES`: it is written as it is gathered, and no server needs memory for all.
`reopening` reads them.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import IO, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from carousel.contract import Signature
from service.engine import Engine
from service.records import Arrays, write_record
from service.repository import ServedModel
from service.rows import INITIAL_ROW, Rows
from service.sessions import HIDDEN, Slots, micro

BLOCK_BYTES = 1 << 23
"""States and answers copied at once: what fits into a core's cache."""
KEPT = ("member", "ends", "lengths", "digests", "versions")
"""Columns of `KeptDump`."""

Run = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a job on the thread that owns rows."""

_Count = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    """What there is of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    version: str
    signature: Signature
    sessions: _Count
    pinned: _Count
    """Of them, those that asked for this version."""
    planes: _Count
    """Rows of the read-only planes: copies of a session share theirs."""
    kept_bytes: _Count


def visible_slots(engine: Engine, model: ServedModel) -> Slots:
    """The sessions that are not the server's own."""
    slots = engine.table.of_model(model.number)
    visible: Slots = slots[engine.table.owner[slots] != engine.table.number_of(HIDDEN)]
    return visible


def part_of(engine: Engine, model: ServedModel, slots: Slots) -> Part:
    """What there is of a model, once what was acknowledged is forgotten."""
    engine.rules.forget(model.number, slots)
    return Part(
        name=model.name,
        version=model.version,
        signature=model.contract.signature,
        sessions=len(slots),
        pinned=int(np.count_nonzero(engine.table.pinned[slots])),
        planes=0 if model.memory is None else len(np.unique(engine.table.memory[slots])),
        kept_bytes=engine.kept.bytes_of(model.number, slots),
    )


async def save_sessions(
    file: IO[bytes], engine: Engine, model: ServedModel, slots: Slots, now: float, run: Run
) -> None:
    """Append the records of a model.

    Args:
        file: Where.
        engine: Drained.
        model: Theirs.
        slots: The sessions.
        now: By the clock of the engine.
        run: Runs a job on the thread that owns rows.

    Raises:
        OSError: the disk takes no more.
    """
    table = engine.table
    planes = await _save_planes(file, model, table.memory[slots], run)
    for part in _blocks(model.row_bytes + table.window_bytes[slots]):
        some = slots[part]
        columns = _columns(engine, model, some, now)
        columns["states"] = await _states(model, table.row[some], run)
        if model.memory is not None:
            columns["memory"] = np.searchsorted(planes, table.memory[some])
        write_record(file, columns)


async def _save_planes(file: IO[bytes], model: ServedModel, rows: Rows, run: Run) -> Rows:
    """Write the read-only planes, those that several sessions share once.

    Returns:
        The rows they have here, in the order in which they are written.
    """
    rows, sharers = np.unique(rows, return_counts=True)
    if model.memory is None:
        return rows
    for part in _blocks(np.full(len(rows), model.memory.row_bytes)):
        planes = await run(partial(model.memory.read, rows[part]))
        write_record(file, {"sharers": sharers[part], **{f"plane{k}": one for k, one in enumerate(planes)}})
    return rows


def _blocks(sizes: NDArray[np.int64]) -> list[slice]:
    """Cut rows of such sizes in bytes where `BLOCK_BYTES` more are full."""
    number = np.cumsum(sizes) // BLOCK_BYTES
    ends = [*(np.flatnonzero(np.diff(number)) + 1).tolist(), len(sizes)]
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False) if start < end]


def _columns(engine: Engine, model: ServedModel, slots: Slots, now: float) -> Arrays:
    table = engine.table
    kept = engine.kept.dump(model.number, slots)
    _, first, owner = np.unique(table.owner[slots], return_index=True, return_inverse=True)
    columns: Arrays = {
        "owners": text_column("\n".join(table.owner_of(slot) for slot in slots[first].tolist())),
        "owner": owner,
        "ids": text_column("\n".join(table.id_of(slot) for slot in slots.tolist())),
        "next_index": table.next_index[slots],
        "idle_us": micro(now) - table.used_us[slots],
        "ttl_us": table.ttl_us[slots],
        "fresh": table.row[slots] == INITIAL_ROW,
        "serials": table.serial[slots],
        "pinned": table.pinned[slots],
    }
    columns |= {f"kept.{name}": getattr(kept, name) for name in KEPT}
    return columns | {f"kept.output{k}": steps.view(np.uint8) for k, steps in enumerate(kept.outputs)}


async def _states(model: ServedModel, rows: Rows, run: Run) -> NDArray[np.generic]:
    """The states of sessions that have made a step."""
    states: NDArray[np.generic] = await run(partial(model.backend.read, rows[rows != INITIAL_ROW]))
    return states


def text_column(text: str) -> NDArray[np.uint8]:
    """Text as an array of bytes."""
    return np.frombuffer(text.encode(), np.uint8)
