"""Generations by the request id of their calls, so that a repeated call goes on with its own. Pure."""

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from service.generate import Generation, Past
from service.replays import check_same
from service.sessions import check_id

RECORDS = 4096
RECORD_TOKENS = 1 << 22
"""Of all together, prompts included."""
RECORD_S = 3600.0


class _Record(NamedTuple):
    when: float
    digest: bytes
    generation: Generation | Past
    """Past: the server before has made it, and nobody has asked since."""

    @property
    def held(self) -> int:
        return len(self.generation.tokens) if isinstance(self.generation, Past) else self.generation.held


class Generations:
    """Those of the last hour by (owner, request id), the ones used last if they are too many."""

    def __init__(self) -> None:
        self._records: OrderedDict[tuple[str, str], _Record] = OrderedDict()

    def find(self, owner: str, request_id: str, content: bytes, now: float) -> Generation | Past | None:
        """What the same call has begun.

        Raises:
            ContentDiffersError: this id was used for another call.
        """
        check_id("request", request_id)
        found = self._records.get((owner, request_id)) if request_id else None
        if found is None or now - found.when > RECORD_S:
            return None
        check_same(request_id, found.digest, _digest(content))
        return found.generation

    def keep(self, owner: str, request_id: str, content: bytes, generation: Generation, now: float) -> None:
        """Remember a generation from now on for an hour."""
        if not request_id:
            return
        self._records[owner, request_id] = _Record(now, _digest(content), generation)
        self._records.move_to_end((owner, request_id))
        held = sum(record.held for record in self._records.values())
        while self._is_too_much(held, now):
            held -= self._records.popitem(last=False)[1].held

    def forget(self, owner: str, request_id: str) -> None:
        """It came to nothing."""
        self._records.pop((owner, request_id), None)

    def dump(self, now: float) -> list[list[Any]]:
        """All of them as JSON: owner, request id, seconds ago, digest, serial, first index, fed, tokens."""
        dumped = []
        for key, (when, digest, generation) in self._records.items():
            past = generation if isinstance(generation, Past) else generation.past
            dumped.append([*key, now - when, digest.hex(), *past[:-1], list(past.tokens)])
        return dumped

    def load(self, dump: Sequence[Sequence[Any]], now: float) -> None:
        """Put back what `dump` gave."""
        for owner, request_id, ago, digest, *past in dump:
            self._records[owner, request_id] = _Record(now - ago, bytes.fromhex(digest), Past(*past))

    def _is_too_much(self, held: int, now: float) -> bool:
        if len(self._records) <= 1:
            return False
        oldest = next(iter(self._records.values())).when
        return len(self._records) > RECORDS or held > RECORD_TOKENS or oldest < now - RECORD_S


def _digest(content: bytes) -> bytes:
    """Enough to know a call by; a prompt may be long."""
    return blake2b(content, digest_size=16).digest()
