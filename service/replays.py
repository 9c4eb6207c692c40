"""Answers of calls that carry a request id, so that a repeated call is answered and not done again. Pure."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Generic, TypeVar

from service.errors import ContentDiffersError
from service.sessions import check_id

REPLAYS = 100_000
REPLAY_S = 3600.0

T = TypeVar("T")


class Replays(Generic[T]):
    """The answers of the last hour, at most 100 000, by (owner, request id)."""

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[str, str], tuple[float, bytes, T]] = OrderedDict()

    def find(self, owner: str, request_id: str, content: bytes, now: float) -> T | None:
        """The answer that the same call was given before, if it was made.

        Raises:
            ContentDiffersError: this id was used for another call.
        """
        check_id("request", request_id)
        found = self._answers.get((owner, request_id)) if request_id else None
        if found is None or now - found[0] > REPLAY_S:
            return None
        if found[1] != _digest(content):
            raise ContentDiffersError(f"request id {request_id!r} was used before for another call")
        return found[2]

    def keep(self, owner: str, request_id: str, content: bytes, answer: T, now: float) -> None:
        """Remember an answer. Without a request id there is nothing to remember it by."""
        if not request_id:
            return
        self._answers[owner, request_id] = (now, _digest(content), answer)
        while len(self._answers) > REPLAYS or next(iter(self._answers.values()))[0] < now - REPLAY_S:
            self._answers.popitem(last=False)

    def dump(self, text_of: Callable[[T], str], now: float) -> list[list[Any]]:
        """All answers as JSON: owner, request id, seconds ago, digest, answer."""
        return [
            [*key, now - when, digest.hex(), text_of(answer)]
            for key, (when, digest, answer) in self._answers.items()
        ]

    def load(self, dump: Sequence[Sequence[Any]], answer_of: Callable[[str], T], now: float) -> None:
        """Put back what `dump` gave."""
        for owner, request_id, ago, digest, text in dump:
            self._answers[owner, request_id] = (now - ago, bytes.fromhex(digest), answer_of(text))


def _digest(content: bytes) -> bytes:
    """Enough to know a call by; the content itself may be as large as a message."""
    return blake2b(content, digest_size=16).digest()
