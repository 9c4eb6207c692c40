"""All live sessions, as columns: position `slot` of every column belongs to one session. Pure.

Columns, because a frame of 64 chunks then costs some forty NumPy calls and not 64 times as many Python ones, and
because a million sessions must neither fill the memory nor stop the garbage collector.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from service.errors import (
    InvalidInputError,
    QuotaExceededError,
    SessionExistsError,
    SessionGoneError,
    SessionLimitError,
    SessionNotFoundError,
)
from service.rows import INITIAL_ROW
from service.tombstones import Key, Tombstones

MAX_TTL_S = 30 * 86400.0
ID_CHARACTERS = 128
ID_BYTES = 15
"""Of an id that the server makes: nobody guesses 120 bits, and in hex they are a string of 80 bytes; 128 would take 96."""
SWEEP_SLOTS = 1 << 16
"""Sessions looked at before the loop turns to others."""

FREE = 0
HIDDEN = ""
"""The owner of sessions that the server makes for itself: nobody sees them, or is told how they ended."""

Slots = NDArray[np.int64]


class SessionTable:
    """Live sessions by owner and id, and the tombstones of those that are gone.

    Args:
        limit: Most sessions.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.tombstones = Tombstones()
        self.quota_of: Callable[[str], int | None] = lambda _: None
        """Most sessions of an owner; None: as many as there are."""
        # What a step reads and writes of a session is one cache line.
        self._hot = np.zeros((limit, 8), np.int64)
        self.serial = self._hot[:, 0]
        """Number of the session in the order of opening: tells it from whoever had the slot before. 0: free."""
        self.row = self._hot[:, 1]
        """The current state row."""
        self.next_index = self._hot[:, 2]
        """Number of committed steps."""
        self.tail = self._hot[:, 3]
        """The index that the next new chunk must have: after everything queued."""
        self.job = self._hot[:, 4]
        """Number of the cohort that holds its last queued chunk; 0: none is queued."""
        self.window_chunks = self._hot[:, 5]
        """Numbered chunks whose answers are kept or still to be made."""
        self.window_bytes = self._hot[:, 6]
        self.used_us = self._hot[:, 7]
        """When it was last used, in microseconds of the clock."""
        self.acknowledged = np.zeros(limit, np.int64)
        """The answers of all steps below it have been received, and may be forgotten."""
        self.ttl_us = np.zeros(limit, np.int64)
        self.memory = np.zeros(limit, np.int64)
        """Row of the read-only planes, of models that have such; else not written, and nothing."""
        self.model = np.zeros(limit, np.int32)
        """Position of its model in the engine's list."""
        self.pinned = np.zeros(limit, np.bool_)
        """Whether it asked for its version, and stays with it when another takes over."""
        self.owner = np.zeros(limit, np.int32)
        """Number of its owner."""
        self._owners: list[str] = []
        """By number: identities are configured, so there are not many."""
        self._owner_numbers: dict[str, int] = {}
        self._ids: list[str] = []
        self._slots: dict[str, dict[str, int]] = {}
        self._free: list[int] = []
        self._opened = self._swept = 0

    def __len__(self) -> int:
        return len(self._ids) - len(self._free)

    @property
    def used_slots(self) -> int:
        """All sessions have slots below it."""
        return len(self._ids)

    def open(self, owner: str, session_id: str, model: int, ttl_s: float, now: float) -> int:
        """Start a session; an empty id lets the server make an unguessable one.

        Returns:
            Its slot.

        Raises:
            InvalidInputError: the id is too long or not printable.
            SessionExistsError: the id belongs to a live session.
            SessionLimitError: the server is full.
            QuotaExceededError: the owner has as many as it may.
        """
        return int(self.open_all([(owner, session_id)], model, micro(ttl_s), now)[0])

    def open_all(self, names: Sequence[Key], model: int, ttl_us: int, now: float) -> Slots:
        """Start sessions by owner and id, all of them or none; see `open`."""
        self.check_new(names)
        return self.put(names, model, ttl_us, now)

    def put(self, names: Sequence[Key], model: int, ttl_us: int, now: float) -> Slots:
        """Start sessions by names that `check_new` has let pass, or that a session has just left."""
        names = [(owner, session_id or secrets.token_hex(ID_BYTES)) for owner, session_id in names]
        for name in names:
            self.tombstones.forget(name)
        slots = self.adopt(names, model)
        self.row[slots], self.used_us[slots], self.ttl_us[slots] = INITIAL_ROW, micro(now), ttl_us
        return slots

    def check_new(self, names: Sequence[Key]) -> None:
        """Whether sessions can be opened by these names; raises as `open` does."""
        taken = set[Key]()
        for owner, session_id in names:
            check_id("session", session_id)
            if session_id in self._slots.get(owner, {}):
                raise SessionExistsError(f"session {session_id!r} exists; attach to it, or close it first")
            if session_id and (owner, session_id) in taken:
                raise InvalidInputError(f"session ids: expected each once, got {session_id!r} twice")
            taken.add((owner, session_id))
        if len(self) + len(names) > self.limit:
            raise SessionLimitError(f"the server has {len(self)} sessions and takes {self.limit} at most")
        for owner, wanted in Counter(owner for owner, _ in names).items():
            most = self.quota_of(owner)
            if most is not None and self.count_of(owner) + wanted > most:
                raise QuotaExceededError(
                    f"sessions: your quota is {most}, you have {self.count_of(owner)} and ask for {wanted}"
                )

    def adopt(self, names: Sequence[Key], model: int, serials: NDArray[np.int64] | None = None) -> Slots:
        """Slots for sessions by owner and id; all but model, name and serial number is still zero.

        Args:
            names: Of no session that lives.
            model: Of all of them.
            serials: What they had before a restart; None: the next ones.
        """
        slots = np.array([self._new_slot(*name) for name in names], np.int64)
        if serials is None:
            serials = np.arange(self._opened + 1, self._opened + 1 + len(slots))
        self._hot[slots] = 0
        self.serial[slots] = serials
        self._opened = max(self._opened, int(serials.max(initial=0)))
        self.model[slots], self.acknowledged[slots], self.pinned[slots] = model, 0, False
        return slots

    def gone_quiet(self, after: float, before: float) -> Slots:
        """Sessions that were last used in this span of time."""
        used = self.used_us[: self.used_slots]
        slots: Slots = ((used >= micro(after)) & (used < micro(before))).nonzero()[0]
        return slots

    def of_model(self, model: int) -> Slots:
        """The live sessions of a model."""
        part = slice(0, self.used_slots)
        slots: Slots = ((self.serial[part] != FREE) & (self.model[part] == model)).nonzero()[0]
        return slots

    def find(self, owner: str, session_id: str, now: float) -> int:
        """The slot of a live session of this owner.

        Raises:
            SessionGoneError: it lived, and its tombstone still stands.
            SessionNotFoundError: it never existed, or belongs to somebody else.
        """
        slot = self._slots.get(owner, {}).get(session_id)
        if slot is not None:
            return slot
        check_id("session", session_id)
        gone = self.tombstones.find((owner, session_id), now)
        raise gone or SessionNotFoundError(f"session {session_id!r} does not exist")

    def id_of(self, slot: int) -> str:
        """The id of a live session."""
        return self._ids[slot]

    def owner_of(self, slot: int) -> str:
        """The owner of a live session."""
        return self._owners[int(self.owner[slot])]

    def count_of(self, owner: str) -> int:
        """How many live sessions an owner has."""
        return len(self._slots.get(owner, ()))

    def number_of(self, owner: str) -> int | None:
        """What stands in the column `owner`; None: it never had a session."""
        return self._owner_numbers.get(owner)

    def remove(self, slot: int, reason: type[SessionGoneError], now: float) -> SessionGoneError:
        """End a session and remember how; returns what its callers are to be told."""
        owner, session_id = self.owner_of(slot), self._ids[slot]
        del self._slots[owner][session_id]
        if not self._slots[owner]:
            del self._slots[owner]
        self.serial[slot] = FREE
        self._ids[slot] = ""
        self._free.append(slot)
        if owner == HIDDEN:
            return reason("the session was the server's own, and is no more")
        return self.tombstones.put((owner, session_id), reason, int(self.next_index[slot]), now)

    def overdue(self, now: float) -> Slots:
        """Sessions whose time-to-live has passed and that have nothing queued: remove them.

        Each call looks at the next `SWEEP_SLOTS` slots only; after `sweeps` calls it has seen all.
        """
        if self._swept >= len(self._ids):
            self._swept = 0
        part = slice(self._swept, min(self._swept + SWEEP_SLOTS, len(self._ids)))
        slots: Slots = np.flatnonzero(self.is_overdue(part, now)) + self._swept
        self._swept += SWEEP_SLOTS
        return slots

    def is_overdue(self, slots: Slots | slice, now: float) -> NDArray[np.bool_]:
        """Which of these slots hold such sessions."""
        over = self.used_us[slots] + self.ttl_us[slots] <= micro(now)
        found: NDArray[np.bool_] = over & (self.serial[slots] != FREE) & (self.job[slots] == 0)
        return found

    @property
    def sweeps(self) -> int:
        """Calls of `overdue` that look at every session once."""
        return -(-len(self._ids) // SWEEP_SLOTS)

    def _new_slot(self, owner: str, session_id: str) -> int:
        if self._free:
            slot = self._free.pop()
            self._ids[slot] = session_id
        else:
            slot = len(self._ids)
            self._ids.append(session_id)
        if owner not in self._owner_numbers:
            self._owner_numbers[owner] = len(self._owners)
            self._owners.append(owner)
        self.owner[slot] = self._owner_numbers[owner]
        self._slots.setdefault(owner, {})[session_id] = slot
        return slot


def micro(seconds: float) -> int:
    """Whole microseconds."""
    return int(seconds * 1e6)


def check_id(what: str, text: str) -> None:
    """Refuse an id that is too long or would spoil a log line.

    Raises:
        InvalidInputError: with the limit and what came.
    """
    if len(text) > ID_CHARACTERS:
        raise InvalidInputError(f"{what} id: expected at most {ID_CHARACTERS} characters, got {len(text)}")
    if not text.isprintable():
        raise InvalidInputError(f"{what} id: expected printable characters, got {text!r}")
