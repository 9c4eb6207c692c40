"""What a planned restart takes along: rows, indices, kept answers and the answers of repeatable calls, in one file.

A NumPy archive, read without unpickling. It is removed once it is read: a crash later on must not bring sessions back
that have stepped since.
"""

import json
import os
import zipfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.contract import Signature
from carousel.errors import CarouselError
from service.engine import Engine
from service.errors import SessionLostError
from service.kept import KeptDump
from service.repository import ServedModel
from service.rows import INITIAL_ROW
from service.sessions import HIDDEN, Slots, micro

NAME = "sessions.npz"
FORMAT = 1
BLOCK_ROWS = 1 << 15
"""Rows copied at once: memory for one block more is all that draining takes."""

_KEPT = ("member", "ends", "lengths", "digests", "versions")

Arrays = dict[str, NDArray[Any]]
Run = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a job on the thread that owns rows."""
BringBack = Callable[[str, str, Signature], Awaitable[ServedModel | None]]
"""Loads a version that takes no new sessions, by name and version, if it is still there."""


class DrainFileError(CarouselError):
    """The file of a drained server cannot be read."""


async def save(folder: Path, engine: Engine, calls: dict[str, Any], run: Run) -> int:
    """Write all sessions; nothing may be queued or running.

    Args:
        folder: Where the file goes, as a whole or not at all.
        engine: Drained.
        calls: What else is to be known after the restart, as JSON.
        run: Runs a job on the thread that owns rows.

    Returns:
        The number of sessions.
    """
    table, now = engine.table, engine.clock()
    arrays: Arrays = {}
    models = []
    for model in engine.models:
        slots = table.of_model(model.number)
        slots = slots[table.owner[slots] != table.number_of(HIDDEN)]
        key = f"model{model.number}."
        arrays |= {key + name: array for name, array in _columns(engine, model, slots, now).items()}
        arrays[key + "states"] = await _states(model, table.row[slots], run)
        arrays |= {
            key + name: array for name, array in (await _memory(model, table.memory[slots], run)).items()
        }
        signature = model.contract.signature.model_dump()
        models.append(
            {"number": model.number, "name": model.name, "version": model.version, "signature": signature}
        )
    document = {"format": FORMAT, "models": models, "calls": calls, "gone": table.tombstones.dump(now)}
    arrays["document"] = np.frombuffer(json.dumps(document).encode(), np.uint8)
    _write(folder / NAME, arrays)
    return len(table) - table.count_of(HIDDEN)


async def _nothing(*_: Any) -> None:
    """There is no repository."""


async def load(
    folder: Path, engine: Engine, run: Run, bring_back: BringBack = _nothing
) -> dict[str, Any] | None:
    """Open again what `save` wrote, if there is a file. Sessions whose model is no longer there are lost.

    Sessions go on with the version that has their rows now, those that asked for theirs with that one.

    Returns:
        `calls`, as they were given to `save`; None: there is no file.

    Raises:
        DrainFileError: it is damaged, of another format, or holds more sessions than the server takes.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        _check_archive(path)
        # NumPy leaves a file open that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            document = json.loads(archive["document"].tobytes())
            _check_format(document)
            for number, wanted in enumerate(document["models"]):
                prefix = f"model{wanted.get('number', number)}."
                arrays = {
                    name.removeprefix(prefix): archive[name] for name in archive if name.startswith(prefix)
                }
                await _open_again(engine, wanted, arrays, run, bring_back)
            engine.table.tombstones.load(document["gone"], engine.clock())
    except (ValueError, KeyError, EOFError, OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise DrainFileError(
            f"{path}: its sessions cannot be opened again ({error}); move the file away to start without them"
        ) from error
    calls: dict[str, Any] = document["calls"]
    return calls


def forget(folder: Path) -> None:
    """The sessions live again: the file must not bring them back a second time."""
    (folder / NAME).unlink(missing_ok=True)


def _columns(engine: Engine, model: ServedModel, slots: Slots, now: float) -> Arrays:
    table = engine.table
    engine.rules.forget(model.number, slots)
    kept = engine.kept.dump(model.number, slots)
    names = "\n".join(f"{table.owner_of(slot)}\n{table.id_of(slot)}" for slot in slots.tolist())
    columns: Arrays = {
        "names": np.frombuffer(names.encode(), np.uint8),
        "next_index": table.next_index[slots],
        "idle_us": micro(now) - table.used_us[slots],
        "ttl_us": table.ttl_us[slots],
        "fresh": table.row[slots] == INITIAL_ROW,
        "serials": table.serial[slots],
        "pinned": table.pinned[slots],
    }
    columns |= {f"kept.{name}": getattr(kept, name) for name in _KEPT}
    return columns | {f"kept.output{k}": steps.view(np.uint8) for k, steps in enumerate(kept.outputs)}


async def _states(model: ServedModel, rows: NDArray[np.int64], run: Run) -> NDArray[np.generic]:
    """The states of sessions that have made a step."""
    rows = rows[rows != INITIAL_ROW]
    blocks = [
        await run(partial(model.backend.read, rows[start : start + BLOCK_ROWS]))
        for start in range(0, len(rows), BLOCK_ROWS)
    ]
    return np.concatenate(blocks) if blocks else np.empty((0, model.contract.state_size), np.float32)


async def _memory(model: ServedModel, rows: NDArray[np.int64], run: Run) -> Arrays:
    """The read-only planes, those that several sessions share once, and which of them each session has."""
    if model.memory is None:
        return {}
    rows, owned = np.unique(rows, return_inverse=True)
    planes = await run(partial(model.memory.read, rows))
    return {"memory_of": owned, **{f"memory{k}": plane for k, plane in enumerate(planes)}}


async def _open_again(
    engine: Engine, wanted: dict[str, Any], arrays: Arrays, run: Run, bring_back: BringBack
) -> None:
    """Open the sessions of one model."""
    now, table = engine.clock(), engine.table
    parts = arrays["names"].tobytes().decode().split("\n")
    names = list(zip(parts[::2], parts[1::2], strict=True)) if len(arrays["next_index"]) else []
    alike = [served for served in engine.models if _is(served, wanted)]
    exact = next((served for served in alike if served.version == wanted.get("version")), None)
    if exact is None and "version" in wanted and (not alike or np.count_nonzero(arrays["pinned"])):
        exact = await bring_back(wanted["name"], wanted["version"], Signature(**wanted["signature"]))
    model = alike[0] if alike else exact
    if model is None:
        for (owner, session_id), steps in zip(names, arrays["next_index"].tolist(), strict=True):
            table.tombstones.put((owner, session_id), SessionLostError, steps, now)
        return
    if len(names) > table.limit - len(table):
        raise ValueError(f"{len(names)} sessions, and the server takes {table.limit}")
    _complete(arrays, model)
    slots = table.adopt(names, model.number, arrays.get("serials"))
    # A version that is not there any more gives its sessions to the one that has its rows.
    table.pinned[slots] = arrays["pinned"] & (exact is not None)
    if exact is not None:
        table.model[slots[arrays["pinned"]]] = exact.number
    table.next_index[slots] = table.tail[slots] = arrays["next_index"]
    table.used_us[slots] = micro(now) - arrays["idle_us"]
    table.ttl_us[slots] = arrays["ttl_us"]
    stepped = slots[~arrays["fresh"]]
    await _write_rows(engine, model, stepped, arrays["states"], run)
    await _write_memory(engine, model, slots, arrays, run)
    outputs = [arrays[f"kept.output{k}"] for k in range(len(model.contract.outputs))]
    dump = KeptDump(**{name: arrays[f"kept.{name}"] for name in _KEPT}, outputs=outputs)
    kept_bytes = engine.kept.total_bytes + int(dump.lengths.sum()) * model.step_bytes
    if kept_bytes > engine.kept.limit_bytes:
        raise ValueError(f"{kept_bytes} bytes of answers, and the server keeps {engine.kept.limit_bytes}")
    table.window_chunks[slots], table.window_bytes[slots] = engine.kept.load(model.number, slots, dump)


async def _write_rows(
    engine: Engine, model: ServedModel, slots: Slots, states: NDArray[np.generic], run: Run
) -> None:
    """Give sessions their rows back, and let them leave for the spill file again where there are too many."""
    start = 0
    while start < len(slots):
        part = slots[start : start + min(BLOCK_ROWS, model.rows.free)]
        rows = model.rows.take(len(part))
        await run(partial(model.backend.write, rows, states[start : start + len(part)]))
        engine.table.row[part] = rows
        start += len(part)
        while (move := engine.spilling.next_move(engine.clock())) is not None:
            await run(move.job)
            engine.spilling.moved(move, None, engine.clock())


async def _write_memory(engine: Engine, model: ServedModel, slots: Slots, arrays: Arrays, run: Run) -> None:
    """Give sessions their read-only planes back."""
    if model.memory is None:
        return
    owned, planes = arrays["memory_of"], [arrays[f"memory{k}"] for k in range(len(model.contract.planes) - 1)]
    rows = model.memory.take(np.bincount(owned, minlength=len(planes[0])))
    await run(partial(model.memory.write, rows, tuple(planes)))
    engine.table.memory[slots] = rows[owned]


def _complete(arrays: Arrays, model: ServedModel) -> None:
    """Files of earlier servers say less: neither the order of opening nor which version was asked for, or answered."""
    arrays.setdefault("pinned", np.zeros(len(arrays["next_index"]), np.bool_))
    arrays.setdefault("kept.versions", np.full(len(arrays["kept.member"]), int(model.version)))


def _is(model: ServedModel, wanted: dict[str, Any]) -> bool:
    """Whether a model takes over the sessions of another: only equal signatures exchange rows."""
    return model.name == wanted["name"] and model.contract.signature == Signature(**wanted["signature"])


def _check_archive(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        raise zipfile.BadZipFile("it is no archive, or not a whole one")


def _check_format(document: dict[str, Any]) -> None:
    if document["format"] != FORMAT:
        raise ValueError(f"expected format {FORMAT}, found {document['format']}")


def _write(path: Path, arrays: Arrays) -> None:
    temporary = path.with_suffix(".tmp")
    with os.fdopen(os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
