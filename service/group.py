"""Frames of one model that were read in one turn of the loop, side by side as columns. No decisions, no state.

Nothing that breaks the contract gets past this module. Axes: n chunks of all frames, S steps of all chunks.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from carousel.contract import Contract, Port
from carousel.wire.frames import NUMPY
from service.cohort import Array, Caller, Segment, cut
from service.errors import InvalidInputError
from service.finite import all_finite

if TYPE_CHECKING:
    from carousel.wire.carousel_pb2 import Tensor

MOST = (1 << 63) - 1
UNNUMBERED = -1
"""Stands for the index of a chunk whose client gives none."""


@dataclass(eq=False, slots=True)
class Group:
    """The columns of some frames; position k of every column belongs to the k-th chunk."""

    callers: list[tuple[Caller, int]] = field(default_factory=list)
    """Each frame's caller and number of chunks."""
    slots: list[int] = field(default_factory=list)
    serials: list[int] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)
    numbered: bool = True
    """Whether the clients of all frames number their steps."""
    blobs: list[Sequence[bytes]] = field(default_factory=list)
    """Of each frame, one for each input of the contract: the steps of all its chunks."""

    def add(
        self,
        caller: Caller,
        slots: Sequence[int],
        serials: Sequence[int],
        firsts: Sequence[int] | None,
        lengths: Sequence[int],
        acknowledged: Sequence[int] | None,
        blobs: Sequence[bytes],
    ) -> None:
        """Put the chunks of one frame behind the others. Blobs have been looked at by `blobs_of`."""
        count = len(slots)
        self.callers.append((caller, count))
        self.slots += slots
        self.serials += serials
        if firsts is None:
            self.numbered, firsts = False, [UNNUMBERED] * count
        self.firsts += firsts
        self.lengths += lengths
        self.acknowledged += [0] * count if acknowledged is None else acknowledged
        self.blobs.append(blobs)


class Columns:
    """The chunks of a group as arrays, with their inputs looked at."""

    length: int
    """T of the first chunk, and of all if they are uniform."""
    slots: NDArray[np.int64]
    serials: NDArray[np.int64]
    firsts: NDArray[np.int64]
    acknowledged: NDArray[np.int64]
    digests: NDArray[np.int64]
    numbered: NDArray[np.bool_] | None
    """Which chunks have an index of their client's; None: all."""

    def __init__(self, group: Group, contract: Contract) -> None:
        count = len(group.slots)
        self.callers = group.callers
        self.length = group.lengths[0]
        self.uniform = group.lengths.count(self.length) == count
        self.lengths = group.lengths
        blobs = [b"".join(parts) for parts in zip(*group.blobs, strict=True)]
        self.inputs = arrays_of(contract, blobs)
        self.mistakes = mistakes_of(contract, self.inputs, group.lengths)
        digests = digests_of(blobs, group.lengths)
        integers = _integers(group.slots + group.serials + group.firsts + group.acknowledged + digests)
        columns = integers.reshape(5, count)
        self.slots, self.serials, self.firsts, self.acknowledged, self.digests = columns
        self.numbered = None if group.numbered else self.firsts != UNNUMBERED
        self.distinct = len(set(group.slots)) == count

    def __len__(self) -> int:
        return len(self.slots)

    @cached_property
    def owners(self) -> list[tuple[Caller, int]]:
        """Each chunk's caller and its position in the caller's frame."""
        return [(caller, k) for caller, count in self.callers for k in range(count)]

    @property
    def segments(self) -> list[Segment]:
        """Who waits for the chunks."""
        if len(self.callers) == 1:
            return [Segment(self.callers[0][0], range(len(self)), 0, len(self))]
        ends = accumulate(count for _, count in self.callers)
        return [
            Segment(caller, range(count), end - count, end)
            for (caller, count), end in zip(self.callers, ends, strict=True)
        ]

    @property
    def batched(self) -> tuple[Array, ...]:
        """The inputs of uniform chunks, `[n, T, *shape]`."""
        return tuple(values.reshape(-1, self.length, *values.shape[1:]) for values in self.inputs)

    def at(self, positions: NDArray[np.int64]) -> "Part":
        """The chunks of one length at some positions."""
        return Part(self, positions)


class Part:
    """Some chunks of one length; see `Columns`."""

    def __init__(self, columns: Columns, positions: NDArray[np.int64]) -> None:
        self.length = columns.lengths[positions[0]]
        self.slots, self.serials = columns.slots[positions], columns.serials[positions]
        self.firsts, self.acknowledged = columns.firsts[positions], columns.acknowledged[positions]
        self.digests = columns.digests[positions]
        self.numbered = None if columns.numbered is None else columns.numbered[positions]
        self.segments = cut([columns.owners[position] for position in positions.tolist()])
        lengths = np.array(columns.lengths)
        starts = np.cumsum(lengths) - lengths
        steps = starts[positions, None] + np.arange(self.length)
        self.batched = tuple(values[steps] for values in columns.inputs)


def blobs_of(ports: Sequence[Port], tensors: "Sequence[Tensor]", steps: int) -> list[bytes]:
    """The blobs of a message, in the order of the contract.

    Raises:
        InvalidInputError: a tensor is missing, unknown or given twice, or its blob has another length.
    """
    names = [port.name for port in ports]
    found: dict[str, bytes] = {}
    for tensor in tensors:
        name = tensor.name
        if name not in names:
            raise InvalidInputError(f"{name}: unknown tensor, expected {', '.join(names)}")
        if name in found:
            raise InvalidInputError(f"{name}: the tensor is given twice")
        found[name] = tensor.data
    for port in ports:
        if port.name not in found:
            raise InvalidInputError(f"{port.name}: the tensor is missing")
        expected = steps * _step_bytes(port)
        if len(found[port.name]) != expected:
            raise InvalidInputError(
                f"{port.name}: expected {steps} x {list(port.shape)} x {port.dtype} = {expected} bytes, "
                f"came {len(found[port.name])}"
            )
    return [found[name] for name in names]


def arrays_of(contract: Contract, blobs: Sequence[bytes]) -> tuple[Array, ...]:
    """The inputs of all frames, `[S, *shape]` each."""
    return tuple(
        np.frombuffer(blob, NUMPY[port.dtype]).reshape(-1, *port.shape)
        for port, blob in zip(contract.inputs, blobs, strict=True)
    )


def mistakes_of(
    contract: Contract, inputs: Sequence[Array], lengths: Sequence[int]
) -> dict[int, InvalidInputError]:
    """What is wrong with the values of a chunk, by its position."""
    for port, values in zip(contract.inputs, inputs, strict=True):
        if mistake_of(port, values) is not None:
            break
    else:
        return {}
    found, end = dict[int, InvalidInputError](), 0
    for position, length in enumerate(lengths):
        start, end = end, end + length
        for port, values in zip(contract.inputs, inputs, strict=True):
            if mistake := mistake_of(port, values[start:end]):
                found[position] = mistake
                break
    return found


def digests_of(blobs: Sequence[bytes], lengths: Sequence[int]) -> list[int]:
    """63 bits of the content of each chunk, to tell a chunk sent twice from another at the same index.

    They guard a client against its own mistakes only, so the hash need not be cryptographic. Lengths are compared
    apart.
    """
    digests, steps = [0] * len(lengths), sum(lengths)
    for blob in blobs:
        size = len(blob) // steps
        ends = list(accumulate([length * size for length in lengths]))
        starts = [0, *ends]
        digests = [
            xxh3_64_intdigest(blob[start:end], seed) >> 1
            for start, end, seed in zip(starts, ends, digests, strict=False)
        ]
    return digests


def _integers(values: list[int]) -> NDArray[np.int64]:
    """Numbers as an array; those that no index reaches stand for the largest one."""
    try:
        # Through an array: NumPy reads a list of numbers several times slower.
        return np.frombuffer(array("q", values), np.int64)
    except OverflowError:
        return np.frombuffer(array("q", [min(value, MOST) for value in values]), np.int64)


def mistake_of(port: Port, values: Array) -> InvalidInputError | None:
    """What is wrong with values of a port, if anything; there is at least one."""
    if values.dtype.kind == "f":
        if not all_finite(values):
            bad = values[~np.isfinite(values)][0]
            return InvalidInputError(f"{port.name}: expected finite numbers, got {bad}")
    elif port.dtype == "bool":
        if values.view(np.uint8).max() > 1:
            return InvalidInputError(f"{port.name}: expected bytes 0 and 1 for bool, came others")
    elif port.vocabulary is not None:
        tokens = values.astype(np.int64, copy=False)
        if tokens.min() < 0 or tokens.max() >= len(port.vocabulary):
            bad = tokens[(tokens < 0) | (tokens >= len(port.vocabulary))][0]
            return InvalidInputError(
                f"{port.name}: expected tokens 0 to {len(port.vocabulary) - 1}, got {bad}"
            )
    return None


def _step_bytes(port: Port) -> int:
    return port.size * NUMPY[port.dtype].itemsize
