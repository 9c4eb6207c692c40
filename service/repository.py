"""Models on disk, in Triton's layout: `repository/name/version/model.onnx`. The newest version is served."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from carousel.contract import METADATA_KEY, Contract, ContractError
from carousel.errors import CarouselError
from carousel.graph import TensorType, disagreements
from carousel.wire.frames import NUMPY
from service.backend import Backend
from service.errors import ModelNotFoundError
from service.kept import WINDOW_BYTES, step_bytes_of
from service.placement import PlacementError, check_form, check_nodes
from service.memory import Memory
from service.rows import INITIAL_ROW, RowAllocator, Rows
from service.runtime import PLAIN, CudaOptions, Provider, make_session
from service.spill import SpillFile
from service.whole_graph import WholeGraph

if TYPE_CHECKING:
    import onnxruntime

PRIMING_FILE = "priming.onnx"
"""Beside the graph whose sessions it begins."""
CHUNK_STEPS = 4096
"""Longest chunk, unless its answer would not fit into a session's window."""

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")
"""As for Triton, a folder whose name begins with 0 holds no version."""
Stamp = frozenset[tuple[str, int, int, int]]
_ORT_DTYPES = {"float": "float32", "double": "float64"}


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


def open_model(
    path: Path,
    provider: Provider,
    threads: int,
    kinds: Sequence[str] = ("step", "whole"),
    cuda: CudaOptions = PLAIN,
) -> "tuple[onnxruntime.InferenceSession, Contract]":
    """Open a model and hold its graph against its contract.

    Raises:
        ModelError: the file is damaged or foreign, or the graph is not what the contract says, or of another kind.
        RuntimeUnavailableError: the provider is not there.
    """
    session = _open(path, provider, threads, cuda._replace(graphs=False))
    contract = _contract_of(session, path)
    if contract.kind not in kinds:
        raise ModelError(f"{path}: expected a graph of kind {' or '.join(kinds)}, got {contract.kind}")
    if contract.kind == "step" and (size := step_bytes_of(contract)) > WINDOW_BYTES:
        raise ModelError(f"{path}: one step answers {size} bytes, a session keeps at most {WINDOW_BYTES}")
    try:
        check_form(contract, provider)
        if provider == "cuda":
            check_nodes(session, cuda)
    except PlacementError as error:
        raise ModelError(f"{path}: {error}") from error
    if provider == "cuda" and cuda.graphs and contract.kind == "step":
        # Only now: a graph that cannot be captured would fail above with less said.
        session = _open(path, provider, threads, cuda)
    return session, contract


def _open(path: Path, provider: Provider, threads: int, cuda: CudaOptions) -> "onnxruntime.InferenceSession":
    try:
        return make_session(path, provider, threads, cuda)
    except CarouselError:
        raise
    except Exception as error:  # onnxruntime's exceptions have no common base but this
        raise ModelError(f"{path}: onnxruntime cannot load it: {error}") from error


def open_priming(path: Path, contract: Contract, provider: Provider, threads: int) -> WholeGraph | None:
    """Open the graph beside a step graph that its sessions begin with; None: there is none.

    Raises:
        ModelError: it begins sessions of another model, or cannot be opened, or is missing and needed.
        RuntimeUnavailableError: the provider is not there.
    """
    beside = path.with_name(PRIMING_FILE)
    if not beside.exists():
        if len(contract.planes) > 1:
            raise ModelError(f"{path}: expected {PRIMING_FILE} beside it, which writes its read-only planes")
        return None
    session, priming = open_model(beside, provider, threads, ("priming",))
    made = {port.name: (port.dtype, port.shape, port.axes) for port in priming.outputs}
    wanted = {plane.input: (plane.dtype, (plane.size,), ("batch",)) for plane in contract.planes}
    if priming.primes != contract.signature or made != wanted:
        raise ModelError(
            f"{beside}: expected the graph that begins sessions of {path.name}, got another one's"
        )
    return WholeGraph(session, priming, f"{path.parent.parent.name}/{path.parent.name}")


def _contract_of(session: "onnxruntime.InferenceSession", path: Path) -> Contract:
    """What the file promises, held against its graph."""
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise ModelError(f"{path}: no contract in the file; export it with `carousel export`")
    try:
        contract = Contract.from_json(text)
    except ContractError as error:
        raise ModelError(f"{path}: {error}") from error
    problems = disagreements(
        contract, _graph_types(session.get_inputs()), _graph_types(session.get_outputs())
    )
    if problems:
        raise ModelError(f"{path}: contract and graph disagree: {problems[0]}")
    if contract.kind != "step":
        _check_axes(contract, path)
    return contract


def _check_axes(contract: Contract, path: Path) -> None:
    """Inputs must say how large everything is."""
    known = {axis for port in contract.inputs for axis in port.axes}
    needed = {axis for port in contract.outputs for axis in port.axes}
    needed |= {"batch", "time"} if contract.lengths else set()
    if needed - known:
        raise ModelError(f"{path}: expected an input with the axes {', '.join(sorted(needed - known))}")


def _graph_types(nodes: "Sequence[onnxruntime.NodeArg]") -> dict[str, TensorType]:
    types = {}
    for node in nodes:
        name = node.type.removeprefix("tensor(").removesuffix(")")
        shape = tuple(size if isinstance(size, int) else str(size) for size in node.shape)
        types[node.name] = TensorType(_ORT_DTYPES.get(name, name), shape)
    return types
