"""From messages to chunks: nothing that breaks the contract gets past this module. No decisions, no state."""

from collections.abc import Iterable, Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from carousel.contract import Contract, Port
from carousel.wire.carousel_pb2 import Tensor
from carousel.wire.frames import FrameError, unpack
from service.errors import InvalidInputError
from service.session import Steps

Array = NDArray[np.generic]


def decode_steps(
    contract: Contract,
    tensors: Iterable[Tensor],
    first_indices: Sequence[int | None],
    lengths: Sequence[int],
    acknowledged: Sequence[int],
) -> list[Steps | InvalidInputError]:
    """Cut the tensors of a frame into its chunks.

    Returns:
        A chunk or what is wrong with it, for each length.

    Raises:
        InvalidInputError: the tensors do not fit the contract or the lengths, so no chunk can be told from another.
    """
    try:
        arrays = unpack(contract.inputs, tensors, sum(lengths))
    except FrameError as error:
        raise InvalidInputError(str(error)) from error
    sound = all(_mistake(port, array) is None for port, array in zip(contract.inputs, arrays, strict=True))
    chunks: list[Steps | InvalidInputError] = []
    start = 0
    for first, length, index in zip(first_indices, lengths, acknowledged, strict=True):
        # A copy, or a step that waits would keep the whole message in memory.
        inputs = tuple(array[start : start + length].copy() for array in arrays)
        start += length
        mistake = None if sound else _first_mistake(contract.inputs, inputs)
        chunks.append(mistake or Steps(first, length, index, _digest(inputs), inputs))
    return chunks


def _first_mistake(ports: Sequence[Port], arrays: Sequence[Array]) -> InvalidInputError | None:
    mistakes = (_mistake(port, array) for port, array in zip(ports, arrays, strict=True))
    return next((mistake for mistake in mistakes if mistake is not None), None)


def _mistake(port: Port, array: Array) -> InvalidInputError | None:
    """What is wrong with the values of one tensor, if anything."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = array[~np.isfinite(array)][0]
        return InvalidInputError(f"{port.name}: expected finite numbers, got {bad}")
    if port.vocabulary is not None and array.dtype.kind in "iu":
        tokens = array.astype(np.int64, copy=False)
        if tokens.min() < 0 or tokens.max() >= len(port.vocabulary):
            bad = tokens[(tokens < 0) | (tokens >= len(port.vocabulary))][0]
            return InvalidInputError(
                f"{port.name}: expected tokens 0 to {len(port.vocabulary) - 1}, got {bad}"
            )
    return None


def _digest(inputs: Sequence[Array]) -> int:
    """64 bits of the content, to tell a chunk sent twice from another at the same index.

    Guards a client against its own mistakes only, so the hash need not be cryptographic. Lengths are compared apart.
    """
    digest = xxhash.xxh3_64()
    for array in inputs:
        digest.update(array.data)
    return digest.intdigest()
