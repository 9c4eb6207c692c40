"""Answers of calls that carry a request id, so that a repeated call is answered and not done again. Pure."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from service.errors import ContentDiffersError
from service.sessions import check_id

REPLAYS = 100_000
REPLAY_S = 3600.0

T = TypeVar("T")


class _Kept(NamedTuple, Generic[T]):
    when: float
    digest: bytes
    answer: T
    names: int


class Replays(Generic[T]):
    """The answers of the last hour that name at most 100 000 sessions, by (owner, request id)."""

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[str, str], _Kept[T]] = OrderedDict()
        self._names = 0

    def find(self, owner: str, request_id: str, digest: bytes, now: float) -> T | None:
        """The answer that the same call was given before, if it was made.

        Args:
            owner: Whose call it is.
            request_id: Of the call.
            digest: Of what it asks for.
            now: The time.

        Raises:
            ContentDiffersError: this id was used for another call.
        """
        check_id("request", request_id)
        found = self._answers.get((owner, request_id)) if request_id else None
        if found is None or now - found.when > REPLAY_S:
            return None
        check_same(request_id, found.digest, digest)
        return found.answer

    def keep(self, owner: str, request_id: str, digest: bytes, answer: T, now: float, names: int = 1) -> None:
        """Remember an answer that names so many sessions. Without a request id there is nothing to remember it by."""
        if not request_id:
            return
        self._put((owner, request_id), _Kept(now, digest, answer, names))
        while self._names > REPLAYS or next(iter(self._answers.values())).when < now - REPLAY_S:
            self._names -= self._answers.popitem(last=False)[1].names

    def dump(self, text_of: Callable[[T], str], now: float) -> list[list[Any]]:
        """All answers as JSON: owner, request id, seconds ago, digest, answer, names."""
        return [
            [*key, now - kept.when, kept.digest.hex(), text_of(kept.answer), kept.names]
            for key, kept in self._answers.items()
        ]

    def load(self, dump: Sequence[Sequence[Any]], answer_of: Callable[[str], T], now: float) -> None:
        """Put back what `dump` gave."""
        for owner, request_id, ago, digest, text, *names in dump:
            kept = _Kept(now - ago, bytes.fromhex(digest), answer_of(text), *(names or [1]))
            self._put((owner, request_id), kept)

    def _put(self, key: tuple[str, str], kept: _Kept[T]) -> None:
        before = self._answers.pop(key, None)
        self._names += kept.names - (0 if before is None else before.names)
        self._answers[key] = kept


def check_same(request_id: str, before: bytes, now: bytes) -> None:
    """Hold the digests of two calls with one request id against each other.

    Raises:
        ContentDiffersError: they ask for different things.
    """
    if before != now:
        raise ContentDiffersError(f"request id {request_id!r} was used before for another call")
