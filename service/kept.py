"""Answers that were given and not yet acknowledged: `WINDOW_CHUNKS` places for each session. Pure.

Answers of one step, the common case, are rows of an arena for each output; longer ones are blobs. Axes: n sessions of
a batch, W places.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.contract import Contract
from carousel.wire.frames import NUMPY
from service.rows import RowAllocator
from service.sessions import Slots

WINDOW_CHUNKS = 8
WINDOW_BYTES = 1 << 20
MAX_SESSIONS = (1 << 31) // WINDOW_CHUNKS
"""Most whose kept answers 32 bits tell from each other."""

FREE = 0
"""The end of no answer: the first step ends at 1."""
_WINDOW = np.dtype((np.void, 8 * WINDOW_CHUNKS))
_AFTER = np.roll(np.arange(WINDOW_CHUNKS, dtype=np.uint8), -1)
"""The place in the window after each: looked up faster than reckoned."""

Blobs = tuple[bytes, ...]
Integers = NDArray[np.int64]


class KeptChunk(NamedTuple):
    """One answered chunk that may be asked for again."""

    first: int
    length: int
    digest: int
    place: int
    """Row of the model's arenas, or, below 0, the key of a longer answer."""
    version: str
    """Of the model that gave the answer: another may have taken over since."""


class KeptDump(NamedTuple):
    """The kept answers of some sessions, one after the other, the oldest of each first."""

    member: Integers
    """Position of its session."""
    ends: Integers
    lengths: Integers
    digests: Integers
    versions: Integers
    """Of the model that gave each answer."""
    outputs: list[NDArray[np.void]]
    """For each output of the contract, its steps: `[sum of lengths]` items."""


class _Arena:
    """The answers of single steps of one model."""

    def __init__(self, contract: Contract, limit_bytes: int, answers: int) -> None:
        self.step_bytes = step_bytes_of(contract)
        self.rows = RowAllocator(max(1, min(limit_bytes // self.step_bytes, answers)), first=0)
        # Pages of zeros cost nothing until an answer is kept in them. NumPy copies one item faster than many numbers.
        sizes = [port.size * NUMPY[port.dtype].itemsize for port in contract.outputs]
        self.items = [np.zeros(self.rows.capacity, np.dtype((np.void, size))) for size in sizes]


class KeptAnswers:
    """The kept answers of every session.

    Args:
        sessions: Slots of the session table.
        limit_bytes: Most bytes of all kept answers; admission sees to it.
    """

    def __init__(self, sessions: int, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.total_bytes = 0
        """Bytes of all answers that are kept now."""
        places = sessions * WINDOW_CHUNKS
        # One place after the other, as NumPy takes and puts single numbers fastest. Narrow: a million sessions are many.
        self._end = np.zeros(places, np.int64)
        self._ends = self._end.view(_WINDOW)
        self._length = np.zeros(places, np.int32)
        self._digest = np.zeros(places, np.int64)
        self._place = np.zeros(places, np.int32)
        """Of the answer itself, as in `KeptChunk`: no more rows are used than there are answers, and no more keys."""
        self._version = np.zeros(places, np.int16)
        """Number of the version that gave the answer."""
        self._next = np.zeros(sessions, np.uint8)
        """Where in the window the next answer goes. Answers are forgotten in order, so it is free."""
        self._arenas: list[_Arena] = []
        self._versions: dict[str, int] = {}
        """Their numbers; versions that are gone are still named by their answers."""
        self._longer: dict[int, Blobs] = {}
        self._keys = RowAllocator(places, first=0)
        """Of longer answers, counted from -1 downwards."""

    def add_model(self, contract: Contract, like: int | None = None) -> None:
        """Make room for the answers of the next model; with `like`, in the same place, as its sessions may move here."""
        self._arenas.append(
            _Arena(contract, self.limit_bytes, len(self._place)) if like is None else self._arenas[like]
        )

    def drop_model(self, model: int) -> None:
        """Free the room of a model that has no sessions, and whose sessions no other model has."""
        self._arenas[model].items.clear()

    def keep(
        self,
        model: int,
        slots: Slots,
        ends: Integers,
        length: int,
        digests: Integers,
        outputs: tuple[NDArray[np.generic], ...],
        version: str,
    ) -> None:
        """Keep one answer for each slot; each has a place free. Slots are distinct, outputs `[n, length, *shape]`."""
        arena = self._arenas[model]
        if length == 1:
            places = arena.rows.take(len(slots))
            for kept, output in zip(arena.items, outputs, strict=True):
                kept[places] = np.ascontiguousarray(output).reshape(-1).view(kept.dtype)
        else:
            places = self._keep_longer(_blobs(outputs))
        column = self._next[slots]
        self._next[slots] = _AFTER[column]
        at = slots * WINDOW_CHUNKS + column
        self._end[at], self._length[at] = ends, length
        self._digest[at], self._version[at] = digests, self._number_of(version)
        self._place[at] = places.astype(np.int32)
        self.total_bytes += len(slots) * length * arena.step_bytes

    def release(self, model: int, slots: Slots, acknowledged: Integers) -> tuple[Integers, Integers] | None:
        """Forget the answers of all steps below `acknowledged`. Slots are distinct and of one model.

        Returns:
            How many answers of each slot were forgotten, and their bytes; None: nothing was.
        """
        ends = self._of(slots)
        ends *= ends <= acknowledged[:, None]
        member, at = ends.nonzero()
        if not len(member):
            return None
        arena, at = self._arenas[model], slots[member] * WINDOW_CHUNKS + at
        self._end[at] = FREE
        self._free(arena, self._place[at])
        sizes = self._length[at] * arena.step_bytes
        self.total_bytes -= int(np.add.reduce(sizes))
        count = len(slots)
        return np.bincount(member, minlength=count), np.bincount(member, sizes, count).astype(np.int64)

    def forget_all(self, model: int, slot: int) -> None:
        """The session is no more: nobody may ask again."""
        self.release(model, np.array([slot]), np.array([np.iinfo(np.int64).max]))

    def of(self, slot: int, acknowledged: int) -> list[KeptChunk]:
        """What is kept for a session and not yet acknowledged, the oldest first."""
        window = slice(slot * WINDOW_CHUNKS, (slot + 1) * WINDOW_CHUNKS)
        columns = (self._end, self._length, self._digest, self._place, self._version)
        held = zip(*(column[window].tolist() for column in columns), strict=True)
        versions = list(self._versions)
        return [
            KeptChunk(end - length, length, digest, place, versions[version])
            for end, length, digest, place, version in sorted(held)
            if end > acknowledged
        ]

    def outputs(self, model: int, chunk: KeptChunk) -> Blobs:
        """The answer itself, one blob for each output."""
        if chunk.place < 0:
            return self._longer[chunk.place]
        return tuple(items[chunk.place].tobytes() for items in self._arenas[model].items)

    def bytes_of(self, model: int, slots: Slots) -> int:
        """Bytes of everything that is kept for some sessions of a model."""
        lengths = self._length.reshape(-1, WINDOW_CHUNKS)[slots]
        return int(lengths[self._of(slots) != FREE].sum()) * self._arenas[model].step_bytes

    def dump(self, model: int, slots: Slots) -> "KeptDump":
        """Everything that is kept for some sessions of a model."""
        ends = self._of(slots)
        member, column = ends.nonzero()
        order = np.lexsort((ends[member, column], member))
        member, at = member[order], (slots[member] * WINDOW_CHUNKS + column)[order]
        lengths, places = self._length[at], self._place[at]
        starts, single = np.cumsum(lengths) - lengths, places >= 0
        outputs = []
        for port, items in enumerate(self._arenas[model].items):
            steps = np.empty(int(lengths.sum()), items.dtype)
            steps[starts[single]] = items[places[single]]
            for start, length, key in np.stack([starts, lengths, places], axis=1)[~single].tolist():
                steps[start : start + length] = np.frombuffer(self._longer[key][port], items.dtype)
            outputs.append(steps)
        versions = np.array([int(version) for version in self._versions], np.int64)[self._version[at]]
        return KeptDump(member, self._end[at], lengths, self._digest[at], versions, outputs)

    def load(self, model: int, slots: Slots, dump: "KeptDump") -> tuple[Integers, Integers]:
        """Keep what `dump` gave, for the same sessions in new slots.

        Returns:
            How many answers of each slot are kept, and their bytes.
        """
        arena, count = self._arenas[model], len(slots)
        chunks = np.bincount(dump.member, minlength=count)
        number = np.arange(len(dump.member)) - (np.cumsum(chunks) - chunks)[dump.member]
        at = slots[dump.member] * WINDOW_CHUNKS + number
        starts, single = np.cumsum(dump.lengths) - dump.lengths, dump.lengths == 1
        places = np.zeros(len(at), np.int64)
        places[single] = rows = arena.rows.take(int(np.count_nonzero(single)))
        for items, steps in zip(arena.items, dump.outputs, strict=True):
            items[rows] = steps.view(items.dtype)[starts[single]]
        longer = []
        for k in (~single).nonzero()[0].tolist():
            part = slice(int(starts[k]), int(starts[k] + dump.lengths[k]))
            longer.append(
                tuple(
                    steps.view(items.dtype)[part].tobytes()
                    for items, steps in zip(arena.items, dump.outputs, strict=True)
                )
            )
        places[~single] = self._keep_longer(longer)
        self._end[at], self._length[at] = dump.ends, dump.lengths
        self._digest[at], self._place[at] = dump.digests, places
        for version in np.unique(dump.versions).tolist():
            self._version[at[dump.versions == version]] = self._number_of(str(version))
        self._next[slots] = chunks % WINDOW_CHUNKS
        sizes = np.bincount(dump.member, dump.lengths * arena.step_bytes, count).astype(np.int64)
        self.total_bytes += int(sizes.sum())
        return chunks, sizes

    def _of(self, slots: Slots) -> Integers:
        """The ends of all answers of some sessions, `[n, W]`: a copy."""
        ends: Integers = self._ends[slots].view(np.int64).reshape(-1, WINDOW_CHUNKS)
        return ends

    def _number_of(self, version: str) -> int:
        """The number of a version among all that have given an answer."""
        return self._versions.setdefault(version, len(self._versions))

    def _free(self, arena: _Arena, places: NDArray[np.int32]) -> None:
        if len(self._longer) and np.count_nonzero(places < 0):
            keys, places = places[places < 0], places[places >= 0]
            for key in keys.tolist():
                del self._longer[key]
            self._keys.give(-1 - keys)
        arena.rows.give(places)

    def _keep_longer(self, answers: Sequence[Blobs]) -> Integers:
        keys = -1 - self._keys.take(len(answers))
        self._longer.update(zip(keys.tolist(), answers, strict=True))
        return keys


def step_bytes_of(contract: Contract) -> int:
    """Bytes of the answer to one step."""
    return sum(port.size * NUMPY[port.dtype].itemsize for port in contract.outputs)


def _blobs(outputs: tuple[NDArray[np.generic], ...]) -> list[Blobs]:
    return [tuple(output[k].tobytes() for output in outputs) for k in range(len(outputs[0]))]
