"""Models on disk, in Triton's layout: `repository/name/version/model.onnx`. The newest version is served."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from carousel.contract import METADATA_KEY, Contract, ContractError
from carousel.errors import CarouselError
from carousel.graph import TensorType, disagreements
from carousel.wire.frames import NUMPY
from service.backend import Backend
from service.kept import WINDOW_BYTES, step_bytes_of
from service.onnx_backend import OnnxBackend
from service.rows import INITIAL_ROW, RowAllocator, Rows
from service.runtime import Provider, make_session
from service.spill import SpillFile

if TYPE_CHECKING:
    import onnxruntime

CHUNK_STEPS = 4096
"""Longest chunk, unless its answer would not fit into a session's window."""

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")
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

    @cached_property
    def chunk_steps(self) -> int:
        """Longest chunk in steps: its answer must fit into a session's window."""
        return max(1, min(CHUNK_STEPS, WINDOW_BYTES // self.step_bytes))


def find_models(repository: Path) -> dict[str, Path]:
    """The newest version of every model.

    Returns:
        Name to `.../name/version/model.onnx`.

    Raises:
        ModelError: there is no such folder, or no model in it.
    """
    if not repository.is_dir():
        raise ModelError(f"{repository}: expected a folder with models (name/version/model.onnx), found none")
    found = {}
    for folder in sorted(repository.iterdir()):
        versions = [path for path in folder.glob("*/model.onnx") if path.parent.name.isdecimal()]
        if versions and not _NAME.fullmatch(folder.name):
            raise ModelError(f"{folder}: expected a name of letters, digits, '_', '.' and '-', up to 128")
        if versions:
            found[folder.name] = max(versions, key=lambda path: int(path.parent.name))
    if not found:
        raise ModelError(
            f"{repository}: no model found; expected name/version/model.onnx, such as text/1/model.onnx"
        )
    return found


def load_model(
    name: str,
    path: Path,
    provider: Provider,
    threads: int,
    rows: int,
    number: int = 0,
    spill: SpillFile | None = None,
) -> ServedModel:
    """Open a model, hold its graph against its contract and make room for its rows.

    Raises:
        ModelError: the file is damaged or foreign, or the graph is not what the contract says.
        RuntimeUnavailableError: the provider is not there.
    """
    try:
        session = make_session(path, provider, threads)
    except CarouselError:
        raise
    except Exception as error:  # onnxruntime's exceptions have no common base but this
        raise ModelError(f"{path}: onnxruntime cannot load it: {error}") from error
    contract = _contract_of(session, path)
    try:
        backend = OnnxBackend(session, contract, rows, spill)
    except MemoryError as error:
        raise ModelError(f"{path}: no memory for {rows} rows of {contract.state_size} numbers") from error
    model = ServedModel(name, path.parent.name, contract, backend, RowAllocator(rows), number, spill)
    if model.step_bytes > WINDOW_BYTES:
        raise ModelError(
            f"{path}: one step answers {model.step_bytes} bytes, a session keeps at most {WINDOW_BYTES}"
        )
    return model


def _contract_of(session: "onnxruntime.InferenceSession", path: Path) -> Contract:
    """What the file promises, held against its graph."""
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise ModelError(f"{path}: no contract in the file; export it with `carousel export`")
    try:
        contract = Contract.from_json(text)
    except ContractError as error:
        raise ModelError(f"{path}: {error}") from error
    if contract.form != "rows":
        raise ModelError(f"{path}: the {contract.form} form cannot be served yet; export without --for cuda")
    problems = disagreements(
        contract, _graph_types(session.get_inputs()), _graph_types(session.get_outputs())
    )
    if problems:
        raise ModelError(f"{path}: contract and graph disagree: {problems[0]}")
    return contract


def _graph_types(nodes: "Sequence[onnxruntime.NodeArg]") -> dict[str, TensorType]:
    types = {}
    for node in nodes:
        name = node.type.removeprefix("tensor(").removesuffix(")")
        shape = tuple(size if isinstance(size, int) else str(size) for size in node.shape)
        types[node.name] = TensorType(_ORT_DTYPES.get(name, name), shape)
    return types
