"""What a planned restart takes along: rows, indices, kept answers and the answers of repeatable calls, in one file.

    first line | document | of each model what `leaving` writes

What follows the line are `records`. The file is removed once it is read: a crash later on must not bring sessions back
that have stepped since.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from threading import Thread
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from carousel.errors import CarouselError
from carousel.mistakes import first_mistake
from service.engine import Engine
from service.leaving import Part, Run, part_of, save_sessions, text_column, visible_slots
from service.records import read_record, write_record
from service.reopening import BringBack, open_again
from service.sessions import HIDDEN

NAME = "sessions.drain"
EARLIER = "sessions.npz"
"""Of format 1, an archive, which is not read any more."""
FORMAT = 2

_CURE = "move the file away to start without them"


class DrainFileError(CarouselError):
    """The file of a drained server cannot be read."""


class _Document(BaseModel):
    """What comes first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: list[Part]
    calls: dict[str, Any]
    gone: list[tuple[str, str, str, float, int]]
    """As `Tombstones.dump` has them."""


async def save(folder: Path, engine: Engine, calls: dict[str, Any], run: Run) -> int:
    """Write all sessions; nothing may be queued or running, and none may end meanwhile.

    Args:
        folder: Where the file goes, as a whole or not at all.
        engine: Drained.
        calls: What else is to be known after the restart, as JSON.
        run: Runs a job on the thread that owns rows.

    Returns:
        The number of sessions.
    """
    table, now = engine.table, engine.clock()
    leaving = [(model, visible_slots(engine, model)) for model in engine.models]
    parts = [part_of(engine, model, slots) for model, slots in leaving]
    document = _Document(models=parts, calls=calls, gone=table.tombstones.dump(now))
    with _whole(folder / NAME) as file:
        file.write(_first_line())
        write_record(file, {"document": text_column(document.model_dump_json())})
        for model, slots in leaving:
            await save_sessions(file, engine, model, slots, now, run)
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
    path, earlier = folder / NAME, folder / EARLIER
    if earlier.exists():
        raise DrainFileError(
            f"{earlier}: its sessions cannot be opened again (expected {NAME}, of format {FORMAT}); {_CURE}"
        )
    if not path.exists():
        return None
    try:
        with path.open("rb") as file:
            _check_first_line(file)
            document = _Document.model_validate_json(read_record(file)["document"].tobytes())
            for part in document.models:
                await open_again(file, engine, part, run, bring_back)
            _check_end(file)
            engine.table.tombstones.load(document.gone, engine.clock())
    except (ValueError, TypeError, LookupError, EOFError, OSError) as error:
        why = first_mistake(error) if isinstance(error, ValidationError) else error
        raise DrainFileError(f"{path}: its sessions cannot be opened again ({why}); {_CURE}") from error
    return document.calls


def forget(folder: Path) -> None:
    """The sessions live again: the file must not bring them back a second time."""
    path = folder / NAME
    if not path.exists():
        return
    file = path.open("rb")
    path.unlink()
    _sync(folder)
    # Its name is gone. That its pages are freed, too, which takes longer, is nothing to wait for.
    Thread(target=file.close).start()


def _first_line() -> bytes:
    return f"carousel sessions, format {FORMAT}\n".encode()


def _check_first_line(file: BufferedReader) -> None:
    expected = _first_line()
    if (found := file.read(len(expected))) != expected:
        raise ValueError(f"expected it to begin with {expected!r}, found {found!r}")


def _check_end(file: BufferedReader) -> None:
    if file.read(1):
        raise ValueError("expected its end, found more")


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` once it is on disk, and is gone if that fails."""
    temporary = path.with_suffix(".tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Else a power cut may bring back the names that were there before."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
