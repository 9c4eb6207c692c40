"""Models on disk, in Triton's layout: `repository/name/version/model.onnx`. The newest version is served."""

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from carousel.contract import Contract
from carousel.errors import CarouselError
from carousel.wire.frames import NUMPY
from service.backend import Backend
from service.errors import ModelNotFoundError
from service.kept import WINDOW_BYTES, step_bytes_of
from service.memory import Memory
from service.rows import INITIAL_ROW, RowAllocator, Rows
from service.spill import SpillFile
from service.whole_graph import WholeGraph

CHUNK_STEPS = 4096
"""Longest chunk, unless its answer would not fit into a session's window."""

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")
"""As for Triton, a folder whose name begins with 0 holds no version."""
Stamp = frozenset[tuple[str, int, int, int]]


class ModelError(CarouselError):
    """A model that cannot be served; says which file and why."""


@dataclass(frozen=True)
class ServedModel:
    """A loaded model with its rows."""

    name: str
    version: str
    contract: Contract
    backend: Backend
    rows: RowAllocator
    number: int = 0
    """Its position among the models of the engine."""
    spill: SpillFile | None = None
    """Where idle rows go when others need their place."""
    memory: Memory | None = None
    """The read-only planes of its sessions; None: it has none."""
    priming: WholeGraph | None = None
    """Makes what sessions begin with; None: they begin with the initial row."""

    def gone(self) -> Self:
        """What is left of it when it is unloaded: what it was, and no rows."""
        return replace(self, rows=RowAllocator(1), spill=None, memory=None, priming=None)

    def leave(self, row: Rows, memory: int) -> None:
        """A session has ended that had this row, and this one of the read-only planes if the model has such."""
        self.give(row)
        if self.memory is not None:
            self.memory.give(memory)

    def give(self, rows: Rows) -> None:
        """Rows that sessions have left, in the arena or in the spill file, which are below 0."""
        if self.spill is not None and np.count_nonzero(rows < INITIAL_ROW):
            self.spill.places.give(-1 - rows[rows < INITIAL_ROW])
            rows = rows[rows >= INITIAL_ROW]
        self.rows.give(rows)

    @cached_property
    def key(self) -> str:
        """Name and version, as the scheduler and the metrics know the model."""
        return f"{self.name}/{self.version}"

    @cached_property
    def step_bytes(self) -> int:
        """Bytes of the answer to one step."""
        return step_bytes_of(self.contract)

    @cached_property
    def held_bytes(self) -> int:
        """Bytes that one step holds on its way through the server: its inputs, or later its answer."""
        return max(self.step_bytes, sum(p.size * NUMPY[p.dtype].itemsize for p in self.contract.inputs))

    @property
    def row_bytes(self) -> int:
        """Bytes of one state row."""
        plane = self.contract.planes[0]
        return plane.size * NUMPY[plane.dtype].itemsize

    @property
    def session_bytes(self) -> int:
        """Bytes of all planes of one session."""
        return self.row_bytes + (0 if self.memory is None else self.memory.row_bytes)

    @cached_property
    def chunk_steps(self) -> int:
        """Longest chunk in steps: its answer must fit into a session's window."""
        return max(1, min(CHUNK_STEPS, WINDOW_BYTES // self.step_bytes))


class ModelFile(NamedTuple):
    """A version in the repository."""

    name: str
    version: str
    path: Path
    stamp: Stamp
    """Changes with its files."""


@dataclass(frozen=True)
class WholeModel:
    """A loaded model that needs all of its input at once. It has no sessions, and no rows."""

    file: ModelFile
    graph: WholeGraph

    @property
    def name(self) -> str:
        """Of the model."""
        return self.file.name

    @property
    def version(self) -> str:
        """Of this one."""
        return self.file.version

    @property
    def contract(self) -> Contract:
        """What its graph promises."""
        return self.graph.contract

    @cached_property
    def key(self) -> str:
        """Name and version, as the metrics know the model."""
        return f"{self.name}/{self.version}"


LoadedModel = ServedModel | WholeModel


def find_models(repository: Path) -> dict[str, ModelFile]:
    """The newest version of every model, by name.

    Raises:
        ModelError: there is no such folder, no model in it, or a model without a name that can be used.
    """
    if not repository.is_dir():
        raise ModelError(f"{repository}: expected a folder with models (name/version/model.onnx), found none")
    found = {}
    for folder in sorted(repository.iterdir()):
        versions = find_versions(folder)
        if versions and not _NAME.fullmatch(folder.name):
            raise ModelError(f"{folder}: expected a name of letters, digits, '_', '.' and '-', up to 128")
        if versions:
            found[folder.name] = versions[-1]
    if not found:
        raise ModelError(
            f"{repository}: no model found; expected name/version/model.onnx, such as text/1/model.onnx"
        )
    return found


def find_version(repository: Path, name: str, version: str) -> ModelFile:
    """A version of a model; an empty one means the newest.

    Raises:
        ModelNotFoundError: it is not there.
    """
    # Whoever asks has not seen the folder: neither may lead out of it.
    versions = find_versions(repository / name) if _NAME.fullmatch(name) else []
    wanted = [one for one in versions if version in ("", one.version)]
    if not wanted:
        there = ", ".join(one.version for one in versions) or "none"
        raise ModelNotFoundError(
            f"model {f'{name}/{version}' if version else name!r} is not in the repository; its versions are: {there}"
        )
    return wanted[-1]


def find_versions(folder: Path) -> list[ModelFile]:
    """The versions of a model, oldest first. Folders with other names than 1, 2, ... hold none."""
    paths = [path for path in folder.glob("*/model.onnx") if _VERSION.fullmatch(path.parent.name)]
    paths.sort(key=lambda path: int(path.parent.name))
    return [ModelFile(folder.name, path.parent.name, path, _stamp(path.parent)) for path in paths]


def _stamp(folder: Path) -> Stamp:
    """Weights may lie in files beside the graph."""
    stamps = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # whoever copies them may rename them
            status = path.stat()
            stamps.append((path.name, status.st_ino, status.st_size, status.st_mtime_ns))
    return frozenset(stamps)
