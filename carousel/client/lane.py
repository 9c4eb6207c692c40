"""One session as the client's stream sees it."""

from asyncio import Future
from dataclasses import dataclass, field

from carousel.client.backoff import Backoff
from carousel.client.errors import Refusal
from carousel.client.served import Arrays, ServedModel
from carousel.client.session_log import SessionLog

UNATTACHED = -1

Reply = Future[Arrays]


@dataclass(eq=False, slots=True)
class Lane:
    """A session on its way through the stream: what is unanswered, and where the session stands on this stream."""

    session: str
    model: ServedModel
    version: str
    """The version that gave the last answer."""
    log: SessionLog[Reply]
    pinned: bool = False
    """Whether the session stays with its version: the server takes it for another model than those that do not."""
    handle: int = UNATTACHED
    """Its number on the present stream."""
    backoff: Backoff = field(default_factory=Backoff)
    refusal: Refusal | None = None
    """Why chunks wait to be sent again."""
    gone: Refusal | None = None
    """Why the session is no more."""
