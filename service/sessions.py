"""All live sessions, as columns: position `slot` of every column belongs to one session. Pure.

Columns, because a frame of 64 chunks then costs some forty NumPy calls and not 64 times as many Python ones, and
because a million sessions must neither fill the memory nor stop the garbage collector.
"""

import secrets
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.errors import (
    InvalidInputError,
    SessionExistsError,
    SessionGoneError,
    SessionLimitError,
    SessionNotFoundError,
)
from service.rows import INITIAL_ROW
from service.tombstones import Tombstones

MAX_TTL_S = 30 * 86400.0
ID_CHARACTERS = 128
SWEEP_SLOTS = 1 << 16
"""Sessions looked at before the loop turns to others."""

FREE = 0

Slots = NDArray[np.int64]


class SessionTable:
    """Live sessions by owner and id, and the tombstones of those that are gone.

    Args:
        limit: Most sessions.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.tombstones = Tombstones()
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
        self.model = np.zeros(limit, np.int64)
        """Position of its model in the engine's list."""
        self._owners: list[str] = []
        self._ids: list[str] = []
        self._slots: dict[str, dict[str, int]] = {}
        self._free: list[int] = []
        self._opened = 0
        self._swept = 0

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
        """
        check_id("session", session_id)
        session_id = session_id or secrets.token_urlsafe(16)
        of_owner = self._slots.setdefault(owner, {})
        if session_id in of_owner:
            raise SessionExistsError(f"session {session_id!r} exists; attach to it, or close it first")
        if len(self) >= self.limit:
            raise SessionLimitError(f"the server has {self.limit} sessions, as many as it takes")
        slot = self._new_slot(owner, session_id)
        of_owner[session_id] = slot
        self.tombstones.forget((owner, session_id))
        self._opened += 1
        self._hot[slot] = 0
        self.serial[slot], self.row[slot], self.used_us[slot] = self._opened, INITIAL_ROW, micro(now)
        self.model[slot], self.ttl_us[slot], self.acknowledged[slot] = model, micro(ttl_s), 0
        return slot

    def adopt(self, names: Sequence[tuple[str, str]], model: int) -> Slots:
        """Slots for sessions that lived before a restart, by owner and id; all but model and name is still zero."""
        slots = np.array([self._new_slot(owner, session_id) for owner, session_id in names], np.int64)
        for (owner, session_id), slot in zip(names, slots.tolist(), strict=True):
            self._slots.setdefault(owner, {})[session_id] = slot
        self._hot[slots] = 0
        self.serial[slots] = np.arange(self._opened + 1, self._opened + 1 + len(slots))
        self._opened += len(slots)
        self.model[slots], self.acknowledged[slots] = model, 0
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
        return self._owners[slot]

    def remove(self, slot: int, reason: type[SessionGoneError], now: float) -> SessionGoneError:
        """End a session and remember how; returns what its callers are to be told."""
        owner, session_id = self._owners[slot], self._ids[slot]
        del self._slots[owner][session_id]
        if not self._slots[owner]:
            del self._slots[owner]
        self.serial[slot] = FREE
        self._ids[slot] = self._owners[slot] = ""
        self._free.append(slot)
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
            self._owners[slot], self._ids[slot] = owner, session_id
            return slot
        self._owners.append(owner)
        self._ids.append(session_id)
        return len(self._ids) - 1


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
