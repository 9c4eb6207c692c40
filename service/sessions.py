"""All sessions of the server: names, owners, time-to-live, and what is told about sessions that are gone. Pure."""

import heapq
import secrets
from collections import OrderedDict
from dataclasses import dataclass

from service.errors import (
    InvalidInputError,
    SessionClosedError,
    SessionEvictedError,
    SessionExistsError,
    SessionExpiredError,
    SessionGoneError,
    SessionLimitError,
    SessionLostError,
    SessionNotFoundError,
)
from service.session import Session

MAX_TTL_S = 30 * 86400.0
TOMBSTONES = 100_000
TOMBSTONE_S = 3600.0
PENDING_RECHECK_S = 0.1
ID_CHARACTERS = 128

_WORDS: dict[type[SessionGoneError], str] = {
    SessionExpiredError: "expired",
    SessionClosedError: "was closed",
    SessionEvictedError: "was evicted",
    SessionLostError: "was lost",
}

Key = tuple[str, str]
"""Owner and session id: ids of different owners never meet."""


@dataclass(frozen=True, slots=True)
class _Tombstone:
    reason: type[SessionGoneError]
    when: float
    steps: int


class SessionTable:
    """Live sessions by owner and id, and the tombstones of those that are gone."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._live: dict[Key, Session] = {}
        self._tombstones: OrderedDict[Key, _Tombstone] = OrderedDict()
        self._deadlines: list[tuple[float, int, Session]] = []
        self._opened = 0

    def __len__(self) -> int:
        return len(self._live)

    def open(self, owner: str, session_id: str, model: str, ttl_s: float, now: float) -> Session:
        """Start a session; an empty id lets the server make an unguessable one.

        Raises:
            InvalidInputError: the id is too long or not printable.
            SessionExistsError: the id belongs to a live session.
            SessionLimitError: the server is full.
        """
        check_id("session", session_id)
        session_id = session_id or secrets.token_urlsafe(16)
        key = (owner, session_id)
        if key in self._live:
            raise SessionExistsError(f"session {session_id!r} exists; attach to it, or close it first")
        if len(self._live) >= self.limit:
            raise SessionLimitError(f"the server has {self.limit} sessions, as many as it takes")
        session = Session(owner, session_id, model, ttl_s, now)
        self._live[key] = session
        self._tombstones.pop(key, None)
        self._opened += 1
        heapq.heappush(self._deadlines, (now + ttl_s, self._opened, session))
        return session

    def get(self, owner: str, session_id: str, now: float) -> Session:
        """Find a live session of this owner.

        Raises:
            SessionGoneError: it lived, and its tombstone still stands.
            SessionNotFoundError: it never existed, or belongs to somebody else.
        """
        session = self._live.get((owner, session_id))
        if session is not None:
            return session
        check_id("session", session_id)
        tombstone = self._tombstones.get((owner, session_id))
        if tombstone is None or now - tombstone.when > TOMBSTONE_S:
            raise SessionNotFoundError(f"session {session_id!r} does not exist")
        raise _gone(session_id, tombstone, now)

    def remove(self, session: Session, reason: type[SessionGoneError], now: float) -> SessionGoneError:
        """End a session and remember how; returns what its callers are to be told."""
        key = (session.owner, session.id)
        del self._live[key]
        tombstone = _Tombstone(reason, now, session.next_index)
        self._tombstones[key] = tombstone
        while len(self._tombstones) > TOMBSTONES:
            self._tombstones.popitem(last=False)
        session.gone = gone = _gone(session.id, tombstone, now)
        self._forget_deadlines()
        return gone

    def overdue(self, now: float, at_most: int) -> list[Session]:
        """Sessions whose time-to-live has passed and that have nothing queued. They are told once: remove them.

        Each session is looked at once per time-to-live, not once per step: a deadline that was moved by a
        step is put back only when it comes up.
        """
        found: list[Session] = []
        while self._deadlines and self._deadlines[0][0] <= now and len(found) < at_most:
            _, number, session = heapq.heappop(self._deadlines)
            if session.gone is not None:
                continue
            if not session.pending and session.last_used + session.ttl_s <= now:
                found.append(session)
            else:
                later = max(session.last_used + session.ttl_s, now + PENDING_RECHECK_S)
                heapq.heappush(self._deadlines, (later, number, session))
        return found

    def _forget_deadlines(self) -> None:
        """Sessions that were closed early must not stay in memory until their time would have come."""
        if len(self._deadlines) > 2 * len(self._live) + 1024:
            self._deadlines = [entry for entry in self._deadlines if entry[2].gone is None]
            heapq.heapify(self._deadlines)


def check_id(what: str, text: str) -> None:
    """Refuse an id that is too long or would spoil a log line.

    Raises:
        InvalidInputError: with the limit and what came.
    """
    if len(text) > ID_CHARACTERS:
        raise InvalidInputError(f"{what} id: expected at most {ID_CHARACTERS} characters, got {len(text)}")
    if not text.isprintable():
        raise InvalidInputError(f"{what} id: expected printable characters, got {text!r}")


def _gone(session_id: str, tombstone: _Tombstone, now: float) -> SessionGoneError:
    how = _WORDS[tombstone.reason]
    return tombstone.reason(
        f"session {session_id!r} {how} {max(now - tombstone.when, 0):.0f} s ago, after {tombstone.steps} steps"
    )
