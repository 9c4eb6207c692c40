"""The inputs of a whole-input graph: arrays that come with their shapes, held against the contract. Pure."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from carousel.contract import Contract, DType, Port
from carousel.wire.frames import NUMPY
from service.cohort import Array
from service.errors import InvalidInputError
from service.group import mistake_of

if TYPE_CHECKING:
    from carousel.wire import carousel_pb2 as pb

Sizes = dict[str, int]
"""By axis: batch, time, node."""

_LETTERS = {"batch": "B", "time": "T", "node": "N"}
_LENGTHS: DType = "int32"
_MOST_AXES = 32
"""No array of NumPy has more for long; a message could name millions."""


class WholeInputs(NamedTuple):
    """What a run gets."""

    arrays: dict[str, Array]
    """By name of the graph's input, lengths included."""
    sizes: Sizes

    @property
    def steps(self) -> int:
        """Steps or nodes of all sequences, padding included."""
        return math.prod(self.sizes.values())


def whole_inputs(contract: Contract, given: "Sequence[pb.Array]", most_steps: int) -> WholeInputs:
    """Look at everything that came.

    Args:
        contract: Of the graph.
        given: The arrays of a message. Lengths may be left out: no row is padded then.
        most_steps: Of all sequences together, padding included; a single one may have `contract.max_steps`.

    Raises:
        InvalidInputError: an array is missing, unknown or given twice, its shape, size or values are not what the
            contract says, sizes differ, or there is more than one run takes.
    """
    found = _by_name(contract, given)
    sizes: Sizes = {}
    for port in contract.inputs:
        _take_sizes(port, found[port.name], sizes)
    inputs = WholeInputs({}, sizes)
    for axis in ("time", "node"):
        if sizes.get(axis, 1) > contract.max_steps:
            what = "steps a sequence" if axis == "time" else "nodes"
            raise InvalidInputError(f"expected at most {contract.max_steps} {what}, came {sizes[axis]}")
    if inputs.steps > max(most_steps, contract.max_steps):
        most = max(most_steps, contract.max_steps)
        raise InvalidInputError(
            f"expected at most {most} steps in all, padding included, came {inputs.steps}"
        )
    for port in contract.inputs:
        inputs.arrays[port.name] = _values(port, found[port.name])
    if contract.lengths:
        inputs.arrays[contract.lengths] = _lengths(contract.lengths, found.get(contract.lengths), sizes)
    return inputs


def shape_of(port: Port, sizes: Sizes) -> tuple[int, ...]:
    """The shape of an output, whose axes are among those of the inputs."""
    return (*(sizes[axis] for axis in port.axes), *port.shape)


def answer_bytes(contract: Contract, sizes: Sizes) -> int:
    """Bytes of all outputs."""
    return sum(math.prod(shape_of(port, sizes)) * NUMPY[port.dtype].itemsize for port in contract.outputs)


def _by_name(contract: Contract, given: "Sequence[pb.Array]") -> "dict[str, pb.Array]":
    needed = [port.name for port in contract.inputs]
    names = [*needed, contract.lengths] if contract.lengths else needed
    found: dict[str, pb.Array] = {}
    for array in given:
        if array.name not in names:
            raise InvalidInputError(f"{array.name}: unknown array, expected {', '.join(names)}")
        if len(array.shape) > _MOST_AXES:
            raise InvalidInputError(
                f"{array.name}: expected at most {_MOST_AXES} axes, came {len(array.shape)}"
            )
        if array.name in found:
            raise InvalidInputError(f"{array.name}: the array is given twice")
        found[array.name] = array
    for name in needed:
        if name not in found:
            raise InvalidInputError(f"{name}: the array is missing")
    return found


def _take_sizes(port: Port, array: "pb.Array", sizes: Sizes) -> None:
    """Read the sizes of an array's axes, and hold all else of its shape against the contract."""
    shape, count = tuple(array.shape), len(port.axes)
    if len(shape) != count + len(port.shape) or shape[count:] != port.shape:
        letters = [_LETTERS[axis] for axis in port.axes]
        wanted = ", ".join([*letters, *map(str, port.shape)])
        raise InvalidInputError(f"{port.name}: expected the shape [{wanted}], came {list(shape)}")
    for axis, size in zip(port.axes, shape, strict=False):
        if size < 1:
            raise InvalidInputError(f"{port.name}: expected a {axis} axis of 1 or more, came {size}")
        if sizes.setdefault(axis, size) != size:
            raise InvalidInputError(
                f"{port.name}: expected a {axis} axis of {sizes[axis]} as in the arrays before, came {size}"
            )
    _check_bytes(array, port.dtype, math.prod(shape) * NUMPY[port.dtype].itemsize)


def _check_bytes(array: "pb.Array", dtype: str, expected: int) -> None:
    if len(array.data) != expected:
        raise InvalidInputError(
            f"{array.name}: expected {dtype} {list(array.shape)} = {expected} bytes, came {len(array.data)}"
        )


def _values(port: Port, array: "pb.Array") -> Array:
    values = np.frombuffer(array.data, NUMPY[port.dtype]).reshape(tuple(array.shape))
    if (mistake := mistake_of(port, values)) is not None:
        raise mistake
    if port.earlier_nodes:
        own = np.arange(len(values)).reshape(-1, *[1] * (values.ndim - 1))
        wrong = (values < -1) | (values >= own)
        if wrong.any():
            node = int(np.argwhere(wrong)[0][0])
            raise InvalidInputError(
                f"{port.name}: expected of node {node} numbers of nodes before it, or -1 for none, "
                f"came {values[wrong][0]}"
            )
    return values


def _lengths(name: str, array: "pb.Array | None", sizes: Sizes) -> Array:
    batch, time = sizes["batch"], sizes["time"]
    if array is None:
        return np.full(batch, time, NUMPY[_LENGTHS])
    if tuple(array.shape) != (batch,):
        raise InvalidInputError(f"{name}: expected the shape [{batch}], came {list(array.shape)}")
    _check_bytes(array, _LENGTHS, batch * NUMPY[_LENGTHS].itemsize)
    lengths = np.frombuffer(array.data, NUMPY[_LENGTHS])
    if lengths.min() < 1 or lengths.max() > time:
        bad = lengths[(lengths < 1) | (lengths > time)][0]
        raise InvalidInputError(f"{name}: expected 1 to {time} steps of each sequence, came {bad}")
    return lengths
