"""A model file read back, and whether its graph keeps its contract. Needs no torch and runs nothing."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from carousel.contract import Contract, ContractError
from carousel.graph import TensorType, disagreements
from export.element_types import ELEMENT_TYPES
from export.errors import ExportError
from export.external import LARGEST_BYTES, external_files
from export.metadata import contract_of
from export.repository import MODEL_FILE, PRIMING_FILE
from export.walk import nodes_of

_DTYPES = {element: dtype for dtype, element in ELEMENT_TYPES.items()}
_FLOATS = {ELEMENT_TYPES[dtype] for dtype in ("float16", "float32", "float64")}


@dataclass(frozen=True)
class ModelFile:
    """A file whose graph and contract agree."""

    path: Path
    size_bytes: int
    """With the weights that lie beside it."""
    model: onnx.ModelProto
    contract: Contract

    @property
    def operators(self) -> Counter[str]:
        """How often each operator is used, in the bodies of loops, too."""
        return Counter(node.op_type for node in nodes_of(self.model.graph))

    @property
    def parameters(self) -> int:
        """Numbers in the weights; constants that are integers, such as axes, are none."""
        weights = self.model.graph.initializer
        return sum(math.prod(weight.dims) for weight in weights if weight.data_type in _FLOATS)


def read_model(path: Path) -> ModelFile:
    """Read a file and hold its graph against its contract. Weights in other files have to be there, but are not read.

    Raises:
        ExportError: the file is no ONNX model, or its weights are not beside it.
        ContractError: it carries no contract, a damaged one, or one that its graph does not keep.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if not path.is_file():
        raise ExportError(f"{path}: expected a model file")
    if size > LARGEST_BYTES:
        raise ExportError(f"{path}: expected at most {LARGEST_BYTES} bytes, got {size}")
    try:
        model = onnx.ModelProto.FromString(path.read_bytes())
    except DecodeError as error:
        raise ExportError(f"{path}: expected an ONNX model, got {size} bytes of something else") from error
    if not model.graph.node:
        raise ExportError(f"{path}: expected an ONNX model, got {size} bytes without a graph")
    try:
        contract = contract_of(model)
    except ContractError as error:
        raise ContractError(f"{path}: {error}") from error
    problems = disagreements(contract, *graph_types(model))
    if problems:
        raise ContractError(f"{path}: contract and graph disagree: {problems[0]}")
    beside = external_files(model, path.parent)
    return ModelFile(path, size + sum(file.stat().st_size for file in beside), model, contract)


def read_models(path: Path) -> list[ModelFile]:
    """Read a file and, beside a step graph that has one, the graph that its sessions begin with.

    Raises:
        ContractError: the two do not belong together.
    """
    found, beside = read_model(path), path.parent / PRIMING_FILE
    if path.name != MODEL_FILE or not beside.is_file():
        return [found]
    priming = read_model(beside)
    planes = [(plane.input, plane.dtype, (plane.size,)) for plane in found.contract.planes]
    given = [(port.name, port.dtype, port.shape) for port in priming.contract.outputs]
    if priming.contract.primes != found.contract.signature or planes != given:
        raise ContractError(
            f"{beside}: expected the graph that begins sessions of {path}, got one for another model"
        )
    return [found, priming]


def graph_types(model: onnx.ModelProto) -> tuple[dict[str, TensorType], dict[str, TensorType]]:
    """Types of the graph's inputs, weights left out, and of its outputs."""
    weights = {weight.name for weight in model.graph.initializer}
    inputs = {value.name: _type(value) for value in model.graph.input if value.name not in weights}
    return inputs, {value.name: _type(value) for value in model.graph.output}


def _type(value: onnx.ValueInfoProto) -> TensorType:
    tensor = value.type.tensor_type
    shape = (size.dim_value if size.HasField("dim_value") else size.dim_param for size in tensor.shape.dim)
    return TensorType(_DTYPES.get(tensor.elem_type, f"type {tensor.elem_type}"), tuple(shape))
