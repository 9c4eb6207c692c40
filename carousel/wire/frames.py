"""Between NumPy and the wire: tensors as blobs, chunks as columns.

Axes: N steps of all chunks of a frame, chunk after chunk. Blobs are row-major and little-endian, typed by the contract.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.contract import DType, Port
from carousel.errors import CarouselError
from carousel.wire.carousel_pb2 import StepFrame, Tensor

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

NUMPY: dict[DType, np.dtype[Any]] = {
    "bool": np.dtype("?"),
    "uint8": np.dtype("u1"),
    "int8": np.dtype("i1"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
}


class FrameError(CarouselError):
    """A frame or a tensor cannot be put together or taken apart."""


class Columns(NamedTuple):
    """The chunks of one frame; position k of every column belongs to the k-th chunk."""

    handles: list[int]
    first_indices: list[int] | None
    """None: the client does not number its steps."""
    lengths: list[int]
    acknowledged: list[int] | None
    """None: the client says nothing about the answers it has received."""


def columns(frame: StepFrame) -> Columns:
    """Take the columns out of a frame.

    Raises:
        FrameError: no chunk, a column that is shorter or longer than `handles`, or a chunk of 0 steps.
    """
    handles = frame.handles[:]  # a slice makes the list twice as fast as list()
    count = len(handles)
    if not count:
        raise FrameError("handles: expected at least one chunk, came none")
    lengths = frame.lengths[:] or [1] * count
    first_indices = frame.first_indices[:] or None
    acknowledged = frame.acknowledged[:] or None
    for name, column in (
        ("lengths", lengths),
        ("first_indices", first_indices),
        ("acknowledged", acknowledged),
    ):
        if column is not None and len(column) != count:
            raise FrameError(f"{name}: expected {count} entries, one for each handle, came {len(column)}")
    if 0 in lengths:
        raise FrameError(f"lengths: expected 1 step or more, came 0 at position {lengths.index(0)}")
    return Columns(handles, first_indices, lengths, acknowledged)


def to_blob(port: Port, array: NDArray[Any]) -> bytes:
    """Copy the steps of one tensor, `[N, *port.shape]`, into a blob.

    Raises:
        FrameError: another dtype or shape than the port's.
    """
    if array.dtype != NUMPY[port.dtype] or array.shape[1:] != port.shape or not array.ndim:
        raise FrameError(f"{port.name}: expected {_described(port)}, came {array.dtype} {list(array.shape)}")
    return array.tobytes()


def pack(
    ports: Sequence[Port], arrays: Sequence[NDArray[Any]], into: "RepeatedCompositeFieldContainer[Tensor]"
) -> None:
    """Append one tensor for each port.

    Args:
        ports: The inputs or the outputs of a contract.
        arrays: The steps of each port in the ports' order, `[N, *port.shape]`, one N for all.
        into: The tensors of a message.

    Raises:
        FrameError: not one array a port, unequal N, or another dtype or shape than the port's.
    """
    if len(arrays) != len(ports):
        raise FrameError(f"expected {len(ports)} tensors ({_names(ports)}), came {len(arrays)}")
    blobs = [to_blob(port, array) for port, array in zip(ports, arrays, strict=True)]
    rows = {len(array) for array in arrays}
    if len(rows) > 1:
        raise FrameError(f"expected as many steps in every tensor, came {[len(array) for array in arrays]}")
    for port, blob in zip(ports, blobs, strict=True):
        into.add(name=port.name, data=blob)


def unpack(ports: Sequence[Port], tensors: Iterable[Tensor], rows: int) -> list[NDArray[Any]]:
    """View the blobs of a message as arrays, without a copy.

    Args:
        ports: The inputs or the outputs of a contract.
        tensors: One tensor for each port, in any order.
        rows: N, the number of steps in each tensor.

    Returns:
        Read-only arrays `[rows, *port.shape]` in the ports' order.

    Raises:
        FrameError: a tensor is missing, unknown or given twice, or its blob has another length.
    """
    names = {port.name for port in ports}
    blobs: dict[str, bytes] = {}
    for tensor in tensors:
        if tensor.name not in names:
            raise FrameError(f"{tensor.name}: unknown tensor, expected {_names(ports)}")
        if tensor.name in blobs:
            raise FrameError(f"{tensor.name}: the tensor is given twice")
        blobs[tensor.name] = tensor.data
    return [_view(port, blobs.get(port.name), rows) for port in ports]


def _view(port: Port, blob: bytes | None, rows: int) -> NDArray[Any]:
    if blob is None:
        raise FrameError(f"{port.name}: the tensor is missing")
    dtype = NUMPY[port.dtype]
    expected_bytes = rows * port.size * dtype.itemsize
    if len(blob) != expected_bytes:
        raise FrameError(
            f"{port.name}: expected {rows} x {list(port.shape)} x {port.dtype} = {expected_bytes} bytes, "
            f"came {len(blob)}"
        )
    if port.dtype == "bool" and blob.translate(None, b"\0\1"):
        raise FrameError(f"{port.name}: expected bytes 0 and 1 for bool, came others")
    return np.frombuffer(blob, dtype).reshape(rows, *port.shape)


def _described(port: Port) -> str:
    return f"{port.dtype} [{', '.join(str(size) for size in ('N', *port.shape))}]"


def _names(ports: Sequence[Port]) -> str:
    return ", ".join(port.name for port in ports)
