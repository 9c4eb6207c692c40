"""Telling callers what became of their chunks."""

from collections.abc import Iterable

from carousel.client.errors import ClientError, EarlierStepFailedError, Refusal
from carousel.client.lane import Reply
from carousel.client.served import Arrays
from carousel.client.session_log import Chunk
from carousel.wire.carousel_pb2 import Reason

UNKNOWN = "it may or may not have been applied"


def settle(chunk: Chunk[Reply], outcome: Arrays | ClientError) -> None:
    """Give the caller the outputs or raise the error in it.

    A caller that has left is passed over; its chunk had to go on, or the indices would be wrong.
    """
    if chunk.reply.done():
        return
    if isinstance(outcome, ClientError):
        chunk.reply.set_exception(outcome)
    else:
        chunk.reply.set_result(outcome)


def fail(chunks: Iterable[Chunk[Reply]], refusal: Refusal) -> None:
    """All chunks failed for the same reason."""
    for chunk in chunks:
        settle(chunk, refusal.to_error())


def fail_first(chunks: list[Chunk[Reply]], refusal: Refusal) -> None:
    """The first chunk failed by itself, those after it because of it."""
    fail(chunks[:1], refusal)
    for chunk in chunks[1:]:
        message = (
            f"step {chunk.first} was not applied, since step {chunks[0].first} failed: {refusal.message}"
        )
        settle(chunk, EarlierStepFailedError(message, Reason.INDEX_UNEXPECTED))
