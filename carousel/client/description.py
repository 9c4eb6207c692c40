"""Where a session stands on the server, as it is told."""

from collections.abc import Sequence
from typing import NamedTuple, Self

from carousel.wire.carousel_pb2 import DescribeResponse


class Description(NamedTuple):
    """Where a session stands on the server."""

    id: str
    model: str
    version: str
    pinned: bool
    """Whether the session stays with this version when a newer one is loaded."""
    owner: str
    next_index: int
    """The number of committed steps."""
    queued_chunks: int
    kept_answers: int
    kept_bytes: int
    expires_in_s: float
    observed: dict[str, float]
    """What its gates did, means over the steps of its last run by the names in the contract's `observed`; empty for models
    without, and before the first step."""

    @classmethod
    def from_wire(cls, told: DescribeResponse, statistics: Sequence[str]) -> Self:
        """Read what `Describe` and `ListSessions` tell, with the names of what is observed."""
        return cls(
            told.session,
            told.model,
            told.version,
            told.pinned,
            told.owner,
            told.next_index,
            told.queued_chunks,
            told.kept_answers,
            told.kept_bytes,
            told.expires_in_s,
            dict(
                zip(statistics, told.observed, strict=False)
            ),  # the file behind a version may be another by now
        )
