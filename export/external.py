"""Weights in a file of their own: a protobuf message ends at 2 GiB, and a runtime maps such a file into memory.

Source: ONNX IR, external tensor data.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import onnx
from onnx import external_data_helper

from export.errors import ExportError

LARGEST_BYTES = 2**31 - 1
"""Of a protobuf message."""
DATA_SUFFIX = ".data"
_SMALL_BYTES = 1024
"""Weights up to this size, and what shapes are made of, stay in the graph."""
_PAGE_BYTES = 4096

Weights = list[onnx.TensorProto]


def weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of all weights that are in memory."""
    return sum(len(weight.raw_data) for weight in model.graph.initializer)


def apart(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Weights]:
    """A copy of a model without its large weights, and those, which are not copied."""
    light, large = onnx.ModelProto(), Weights()
    for field, value in model.ListFields():
        if field.name != "graph":
            _copy(light, field.name, value)
    for field, value in model.graph.ListFields():
        if field.name != "initializer":
            _copy(light.graph, field.name, value)
    for weight in model.graph.initializer:
        if len(weight.raw_data) > _SMALL_BYTES:
            large.append(weight)
        else:
            light.graph.initializer.append(weight)
    return light, large


def to_files(
    model: onnx.ModelProto, name: str, largest_bytes: int = LARGEST_BYTES
) -> dict[str, Iterable[bytes]]:
    """What is to be written for a model, by the name of the file.

    Args:
        model: Weights inside.
        name: Of its file.
        largest_bytes: Models with more weights than this get a second file, `name` + `DATA_SUFFIX`.
    """
    # What a graph has beside its weights is small; 1 MiB in 2 GiB is left for it.
    if weight_bytes(model) <= largest_bytes - min(2**20, largest_bytes // 2):
        return {name: [model.SerializeToString()]}
    light, large = apart(model)
    _refer(light, large, name + DATA_SUFFIX)
    return {name: [light.SerializeToString()], name + DATA_SUFFIX: _pages(large)}


def external_files(model: onnx.ModelProto, folder: Path) -> list[Path]:
    """The files beside a model that hold weights of it.

    Raises:
        ExportError: one of them is not there, or is shorter than the graph says; or lies elsewhere.
    """
    ends: dict[str, int] = {}
    for weight in model.graph.initializer:
        if external_data_helper.uses_external_data(weight):
            place = external_data_helper.ExternalDataInfo(weight)
            end = (place.offset or 0) + (place.length or 0)
            ends[place.location] = max(end, ends.get(place.location, 0))
    for name, end in ends.items():
        if Path(name).name != name:
            raise ExportError(f"expected weights beside the model, not in {name!r}")
        if not (folder / name).is_file():
            raise ExportError(f"{folder / name}: expected the weights of the model, found no such file")
        if (found := (folder / name).stat().st_size) < end:
            raise ExportError(f"{folder / name}: expected {end} bytes of weights, got {found}")
    return [folder / name for name in sorted(ends)]


def fetch_weights(model: onnx.ModelProto, folder: Path) -> None:
    """Put weights that lie beside a model into it; `external_files` was happy."""
    external_data_helper.load_external_data_for_model(model, str(folder))


def as_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its large weights as inputs, for those who look at shapes alone and take no large message."""
    light, large = apart(model)
    for weight in large:
        port = onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        light.graph.input.append(port)
    return light


def refer_to(model: onnx.ModelProto, large: Sequence[onnx.TensorProto]) -> None:
    """Name weights in a model that are handed to the runtime beside it."""
    _refer(model, large, "beside")


def _refer(model: onnx.ModelProto, large: Sequence[onnx.TensorProto], file: str) -> None:
    """Name weights in a model that lie in a file, a page after the other."""
    offset = 0
    for weight in large:
        size = len(weight.raw_data)
        named = model.graph.initializer.add(name=weight.name, data_type=weight.data_type, dims=weight.dims)
        named.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", file), ("offset", str(offset)), ("length", str(size))):
            named.external_data.add(key=key, value=value)
        offset += size + -size % _PAGE_BYTES


def _pages(large: Weights) -> Iterator[bytes]:
    for weight in large:
        yield weight.raw_data
        yield bytes(-len(weight.raw_data) % _PAGE_BYTES)


def _copy(message: onnx.ModelProto | onnx.GraphProto, field: str, value: object) -> None:
    single = onnx.ModelProto() if isinstance(message, onnx.ModelProto) else onnx.GraphProto()
    if hasattr(value, "extend"):
        getattr(single, field).extend(value)
    else:
        setattr(single, field, value)
    message.MergeFrom(single)
