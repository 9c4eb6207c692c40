"""What is told about sessions that are gone. Pure."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.errors import (
    SessionClosedError,
    SessionEvictedError,
    SessionExpiredError,
    SessionGoneError,
    SessionLostError,
)

TOMBSTONES = 100_000
TOMBSTONE_S = 3600.0

Key = tuple[str, str]
"""Owner and session id: ids of different owners never meet."""

_WORDS: dict[type[SessionGoneError], str] = {
    SessionExpiredError: "expired",
    SessionClosedError: "was closed",
    SessionEvictedError: "was evicted",
    SessionLostError: "was lost",
}


@dataclass(frozen=True, slots=True)
class _Tombstone:
    reason: type[SessionGoneError]
    when: float
    steps: int


class Tombstones:
    """How the sessions of the last hour ended, at most 100 000."""

    def __init__(self) -> None:
        self._stones: OrderedDict[Key, _Tombstone] = OrderedDict()

    def put(self, key: Key, reason: type[SessionGoneError], steps: int, now: float) -> SessionGoneError:
        """Remember how a session ended; returns what its callers are to be told."""
        self._stones[key] = _Tombstone(reason, now, steps)
        while len(self._stones) > TOMBSTONES:
            self._stones.popitem(last=False)
        return _gone(key[1], self._stones[key], now)

    def find(self, key: Key, now: float) -> SessionGoneError | None:
        """How it ended, if that is still known."""
        stone = self._stones.get(key)
        if stone is None or now - stone.when > TOMBSTONE_S:
            return None
        return _gone(key[1], stone, now)

    def dump(self, now: float) -> list[list[Any]]:
        """All of them as JSON: owner, id, reason, seconds ago, steps."""
        return [
            [*key, stone.reason.__name__, now - stone.when, stone.steps]
            for key, stone in self._stones.items()
        ]

    def load(self, dump: Sequence[Sequence[Any]], now: float) -> None:
        """Put back what `dump` gave."""
        reasons = {reason.__name__: reason for reason in _WORDS}
        for owner, session_id, reason, ago, steps in dump:
            self.put((owner, session_id), reasons[reason], steps, now - ago)

    def forget(self, key: Key) -> None:
        """The id lives again."""
        self._stones.pop(key, None)


def _gone(session_id: str, stone: _Tombstone, now: float) -> SessionGoneError:
    how = _WORDS[stone.reason]
    return stone.reason(
        f"session {session_id!r} {how} {max(now - stone.when, 0):.0f} s ago, after {stone.steps} steps"
    )
