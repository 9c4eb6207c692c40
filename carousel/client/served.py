"""A model as a client sees it: its contract, the limits that hold for it, and its inputs as blobs.

Axes: T steps of one chunk.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from carousel.client.errors import InvalidInputError
from carousel.contract import Contract, Port
from carousel.wire import carousel_pb2
from carousel.wire.carousel_pb2 import Reason
from carousel.wire.frames import NUMPY, FrameError, to_blob

Arrays = dict[str, NDArray[Any]]
Inputs = Mapping[str, NDArray[Any]] | NDArray[Any]
"""Arrays `[T, *shape]` by input name; a bare array where the contract has one input."""

CHUNKS_A_MESSAGE = 4
"""A chunk may fill a quarter of a message, so that a frame always has room for several."""


class Limits(NamedTuple):
    """What the server takes."""

    chunk_steps: int
    window_chunks: int
    """Answers of one session that may be unacknowledged, and their bytes."""
    window_bytes: int
    message_bytes: int
    stream_chunks: int
    """Chunks that one stream may have in the server at once."""


class FailedModel(NamedTuple):
    """A version that is in the repository and is not served."""

    name: str
    version: str
    error: str
    """Why not."""


@dataclass(frozen=True, eq=False)
class ServedModel:
    """One version of a model on a server."""

    name: str
    version: str
    contract: Contract
    limits: Limits
    retiring: bool = False
    """It has sessions and takes no new ones."""
    sessions: int = 0
    """How many were open when the server told."""
    priming: Contract | None = None
    """Of the graph that makes the state that sessions begin with, if the model has one."""

    @classmethod
    def from_wire(cls, model: carousel_pb2.Model) -> Self:
        """Read a model as `ListModels` tells it.

        Raises:
            ContractError: this release cannot read the contract.
        """
        told = model.limits
        limits = Limits(
            told.chunk_steps, told.window_chunks, told.window_bytes, told.message_bytes, told.stream_chunks
        )
        return cls(
            model.name,
            model.version,
            Contract.from_json(model.contract),
            limits,
            model.state == carousel_pb2.Model.RETIRING,
            model.sessions,
            Contract.from_json(model.priming_contract) if model.priming_contract else None,
        )

    @property
    def chunk_steps(self) -> int:
        """T of the longest chunk: what the server takes, what its window keeps, what a message holds."""
        return min(
            self.limits.chunk_steps,
            self.limits.window_bytes // self.answer_bytes(1),
            self.limits.message_bytes // CHUNKS_A_MESSAGE // _step_bytes(self.contract.inputs),
        )

    def answer_bytes(self, length: int) -> int:
        """Bytes of the outputs of `length` steps."""
        return length * _step_bytes(self.contract.outputs)

    def to_blobs(self, inputs: Inputs) -> tuple[int, tuple[bytes, ...]]:
        """Copy the inputs of one chunk.

        Args:
            inputs: Arrays `[T, *shape]` with exactly the contract's dtypes.

        Returns:
            T, and one blob for each input in the contract's order.

        Raises:
            InvalidInputError: a name, dtype, shape or length that the contract or the limits do not allow.
        """
        ports = self.contract.inputs
        if not isinstance(inputs, Mapping):
            inputs = {ports[0].name: inputs}
        if inputs.keys() != {port.name for port in ports}:
            wanted, came = (", ".join(names) for names in ((port.name for port in ports), inputs))
            raise _invalid(f"inputs: expected {wanted}, came {came or 'none'}")
        try:
            blobs = tuple(to_blob(port, np.asarray(inputs[port.name])) for port in ports)
        except FrameError as error:
            raise _invalid(str(error)) from None
        lengths = [len(inputs[port.name]) for port in ports]
        if len(set(lengths)) != 1:
            raise _invalid(f"inputs: expected as many steps in each, came {lengths}")
        if not 1 <= lengths[0] <= self.chunk_steps:
            raise _invalid(f"inputs: expected 1 to {self.chunk_steps} steps a chunk, came {lengths[0]}")
        return lengths[0], blobs


class Loaded(NamedTuple):
    """What `load_model` did."""

    model: ServedModel
    took_over: bool
    """Whether live sessions go on with it."""


def _step_bytes(ports: tuple[Port, ...]) -> int:
    return sum(port.size * NUMPY[port.dtype].itemsize for port in ports)


def _invalid(message: str) -> InvalidInputError:
    return InvalidInputError(message, Reason.INVALID_INPUT)
