"""Sessions go on where another server left them: reads what `leaving` wrote."""

from collections.abc import Awaitable, Callable
from functools import partial
from io import BufferedReader

import numpy as np
from numpy.typing import NDArray

from carousel.contract import Signature
from service.engine import Engine
from service.errors import SessionLostError
from service.kept import WINDOW_CHUNKS, KeptDump
from service.leaving import KEPT, Part, Run
from service.records import Arrays, read_record
from service.repository import ServedModel
from service.rows import Rows
from service.sessions import Slots, micro
from service.tombstones import Key

BringBack = Callable[[str, str, Signature], Awaitable[ServedModel | None]]
"""Loads a version that takes no new sessions, by name and version, if it is still there."""

_SESSION = ("next_index", "idle_us", "ttl_us", "fresh", "serials", "pinned")


async def open_again(
    file: BufferedReader, engine: Engine, part: Part, run: Run, bring_back: BringBack
) -> None:
    """Open the sessions of one model; if there is no model for them, they are lost.

    Args:
        file: Where its records begin, and afterwards where they end.
        engine: Nothing has run yet.
        part: What is in them.
        run: Runs a job on the thread that owns rows.
        bring_back: Loads a version that is not served.

    Raises:
        ValueError, TypeError, LookupError, EOFError: they are damaged, or do not fit each other or the server.
        OSError: the disk does not give them.
    """
    now, table = engine.clock(), engine.table
    model, exact = await _successors(engine, part, bring_back)
    if model is not None:
        _check_room(engine, part)
    planes = await _load_planes(file, model, part.planes, run)
    left = part.sessions
    while left:
        columns = read_record(file)
        names = _names(columns)
        left -= len(names)
        if left < 0:
            raise ValueError(f"expected {part.sessions} sessions of {part.name!r}, found more")
        if model is None:
            for name, steps in zip(names, columns["next_index"].tolist(), strict=True):
                table.tombstones.put(name, SessionLostError, steps, now)
            continue
        _check_columns(columns, model, len(names))
        slots = table.adopt(names, model.number, columns["serials"])
        # A version that is not there any more gives its sessions to the one that has its rows.
        if exact is not None:
            table.pinned[slots] = columns["pinned"]
            table.model[slots[columns["pinned"]]] = exact.number
        _fill(engine, model, slots, columns, now)
        await _load_states(engine, model, slots[~columns["fresh"]], columns["states"], run)
        if model.memory is not None:
            table.memory[slots] = planes[columns["memory"]]


async def _successors(
    engine: Engine, part: Part, bring_back: BringBack
) -> tuple[ServedModel | None, ServedModel | None]:
    """The model that has the rows now, and the version itself, which those who asked for it stay with."""
    alike = [served for served in engine.models if _is(served, part)]
    exact = next((served for served in alike if served.version == part.version), None)
    if exact is None and (part.pinned or not alike):
        exact = await bring_back(part.name, part.version, part.signature)
    return alike[0] if alike else exact, exact


def _is(model: ServedModel, part: Part) -> bool:
    """Whether a model takes over the sessions of another: only equal signatures exchange rows."""
    return model.name == part.name and model.contract.signature == part.signature


def _check_room(engine: Engine, part: Part) -> None:
    table, kept = engine.table, engine.kept
    if part.sessions > table.limit - len(table):
        raise ValueError(f"{part.sessions} sessions, and the server takes {table.limit}")
    kept_bytes = kept.total_bytes + part.kept_bytes
    if kept_bytes > kept.limit_bytes:
        raise ValueError(f"{kept_bytes} bytes of answers, and the server keeps {kept.limit_bytes}")


def _check_columns(columns: Arrays, model: ServedModel, sessions: int) -> None:
    """Places and sizes follow from these numbers: whoever made the file, they must fit each other."""
    member, lengths = columns["kept.member"], columns["kept.lengths"]
    outputs = [output for name, output in columns.items() if name.startswith("kept.output")]
    fits = (
        all(len(columns[name]) == sessions for name in _SESSION)
        and all(len(columns[f"kept.{name}"]) == len(member) for name in KEPT)
        and columns["states"].size == np.count_nonzero(~columns["fresh"]) * model.contract.state_size
        and 0 <= member.min(initial=0) <= member.max(initial=0) < sessions
        and np.bincount(member, minlength=1).max() <= WINDOW_CHUNKS
        and lengths.min(initial=1) > 0
        and sum(output.nbytes for output in outputs) == lengths.sum() * model.step_bytes
    )
    if not fits:
        raise ValueError("it is none of ours: its columns do not fit each other")


def _names(columns: Arrays) -> list[Key]:
    """Owner and id of each session."""
    owners, ids = (columns[name].tobytes().decode().split("\n") for name in ("owners", "ids"))
    return [(owners[k], one) for k, one in zip(columns["owner"].tolist(), ids, strict=True)]


def _fill(engine: Engine, model: ServedModel, slots: Slots, columns: Arrays, now: float) -> None:
    """Give sessions all but what the thread that owns rows has to write."""
    table = engine.table
    table.next_index[slots] = table.tail[slots] = columns["next_index"]
    table.used_us[slots] = micro(now) - columns["idle_us"]
    table.ttl_us[slots] = columns["ttl_us"]
    outputs = [columns[f"kept.output{k}"] for k in range(len(model.contract.outputs))]
    dump = KeptDump(**{name: columns[f"kept.{name}"] for name in KEPT}, outputs=outputs)
    table.window_chunks[slots], table.window_bytes[slots] = engine.kept.load(model.number, slots, dump)


async def _load_states(
    engine: Engine, model: ServedModel, slots: Slots, states: NDArray[np.generic], run: Run
) -> None:
    """Give sessions their rows back, and let them leave for the spill file again where there are too many."""
    start = 0
    while start < len(slots):
        part = slots[start : start + model.rows.free]
        rows = model.rows.take(len(part))
        await run(partial(model.backend.write, rows, states[start : start + len(part)]))
        engine.table.row[part] = rows
        start += len(part)
        while (move := engine.spilling.next_move(engine.clock())) is not None:
            await run(move.job)
            engine.spilling.moved(move, None, engine.clock())


async def _load_planes(file: BufferedReader, model: ServedModel | None, count: int, run: Run) -> Rows:
    """Read so many rows of the read-only planes.

    Returns:
        Where they are now; they stay behind if there is no model for them.
    """
    rows = np.empty(0, np.int64)
    while len(rows) < count:
        record = read_record(file)
        sharers = record["sharers"]
        if not 0 < len(sharers) <= count - len(rows):
            raise ValueError(f"expected {count - len(rows)} planes more, found {len(sharers)}")
        some = np.zeros(len(sharers), np.int64)
        if model is not None and model.memory is not None:
            some = model.memory.take(sharers)
            planes = tuple(record[f"plane{k}"] for k in range(len(model.contract.planes) - 1))
            await run(partial(model.memory.write, some, planes))
        rows = np.concatenate([rows, some])
    return rows
