"""What callers give as messages, and answers as arrays."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from carousel.client.errors import InvalidInputError, ServerFailedError
from carousel.client.served import Arrays, Inputs
from carousel.contract import Contract, Port
from carousel.wire.carousel_pb2 import Array, Forecasted, Reason, Scenario
from carousel.wire.frames import NUMPY, FrameError, to_blob, unpack

M = TypeVar("M", bound=Message)


def to_request(kind: type[M], **fields: Any) -> M:
    """A message with these fields.

    Raises:
        InvalidInputError: one of them has no place in it, such as a negative number of steps.
    """
    try:
        return kind(**fields)
    except (TypeError, ValueError) as error:
        raise _invalid(f"{kind.DESCRIPTOR.name}: {error}") from error


def to_arrays(contract: Contract, inputs: Mapping[str, NDArray[Any]]) -> Iterator[Array]:
    """Inputs of a whole-input or a priming graph as messages.

    Args:
        contract: Of that graph.
        inputs: Arrays by input name, with exactly the contract's dtypes; the lengths, if given, are int32.

    Raises:
        InvalidInputError: a name or a dtype that the contract does not have. The server checks shapes.
    """
    dtypes = {port.name: NUMPY[port.dtype] for port in contract.inputs} | {contract.lengths: NUMPY["int32"]}
    for name, values in inputs.items():
        array = np.asarray(values)
        if name not in dtypes:
            raise _invalid(f"inputs: expected {', '.join(dtypes)}, came {name}")
        if array.dtype != dtypes[name]:
            raise _invalid(f"{name}: expected {dtypes[name]}, came {array.dtype}")
        yield Array(name=name, shape=array.shape, data=array.tobytes())


def from_arrays(ports: Sequence[Port], arrays: Iterable[Array]) -> Arrays:
    """Outputs of a whole-input graph, the caller's own copies.

    Raises:
        ServerFailedError: the server answers with other outputs than the contract's.
    """
    dtypes = {port.name: NUMPY[port.dtype] for port in ports}
    try:
        return {
            array.name: np.frombuffer(array.data, dtypes[array.name]).reshape(array.shape).copy()
            for array in arrays
        }
    except (KeyError, ValueError) as error:
        raise ServerFailedError(f"an answer cannot be read: {error}") from error


def to_scenario(contract: Contract, inputs: Inputs) -> Scenario:
    """Inputs of coming steps, `[T, *shape]` each, T as long as each input needs.

    Raises:
        InvalidInputError: a name, dtype or shape that the contract does not have.
    """
    ports = {port.name: port for port in contract.inputs}
    if not isinstance(inputs, Mapping):
        inputs = {contract.inputs[0].name: inputs}
    scenario = Scenario()
    for name, values in inputs.items():
        if name not in ports:
            raise _invalid(f"inputs: expected {', '.join(ports)}, came {name}")
        try:
            scenario.inputs.add(name=name, data=to_blob(ports[name], np.asarray(values)))
        except FrameError as error:
            raise _invalid(str(error)) from None
    return scenario


def from_forecast(contract: Contract, forecasted: Forecasted, steps: int) -> Arrays:
    """Outputs `[steps, *shape]` by name, the caller's own copies.

    Raises:
        ServerFailedError: the server answers with other outputs than the contract's.
    """
    try:
        arrays = unpack(contract.outputs, forecasted.outputs, steps)
    except FrameError as error:
        raise ServerFailedError(f"an answer cannot be read: {error}") from error
    return {port.name: array.copy() for port, array in zip(contract.outputs, arrays, strict=True)}


def _invalid(message: str) -> InvalidInputError:
    return InvalidInputError(message, Reason.INVALID_INPUT)
