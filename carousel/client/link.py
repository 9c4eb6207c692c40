"""The one stream of a client, made anew whenever it breaks.

The link moves chunks between the sessions' logs and the wire. What becomes of a chunk, its log decides; the link only
waits: for work, for the server, for the next try.
"""

import asyncio
from typing import TYPE_CHECKING

import grpc

from carousel.client.answers import Answer, answers
from carousel.client.backoff import Backoff
from carousel.client.errors import (
    ClientClosedError,
    Refusal,
    ServerFailedError,
    SessionGoneError,
)
from carousel.client.lane import UNATTACHED, Lane, Reply
from carousel.client.outbox import Outbox
from carousel.client.replies import UNKNOWN, fail, fail_first, settle
from carousel.client.served import Arrays
from carousel.client.session_log import Chunk
from carousel.wire.carousel_pb2 import AnswerFrame, Attached, Reason, StreamRequest, StreamResponse
from carousel.wire.frames import FrameError

if TYPE_CHECKING:
    Call = grpc.aio.StreamStreamCall[StreamRequest, StreamResponse]
    Stream = grpc.aio.StreamStreamMultiCallable[StreamRequest, StreamResponse]

_Code = grpc.StatusCode
_LASTING: frozenset[int] = frozenset(
    code.value[0]
    for code in (_Code.INVALID_ARGUMENT, _Code.UNIMPLEMENTED, _Code.UNAUTHENTICATED, _Code.PERMISSION_DENIED)
)
"""A new stream would end the same way. Every other end of a stream counts as a lost connection."""


class Link:
    """Sends the chunks of any number of sessions over one stream and settles their replies.

    It belongs to one event loop. The stream is made when there is something to send, and kept.
    """

    def __init__(self, stream: "Stream") -> None:
        self.trouble = ""
        """What ended the last stream, for people; empty once a step was answered again."""
        self._stream = stream
        self._lanes: set[Lane] = set()
        self._outbox = Outbox()
        self._work = asyncio.Event()
        self._backoff = Backoff()
        self._draining = False
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    def join(self, lane: Lane) -> None:
        """Take care of a session."""
        self._lanes.add(lane)

    def leave(self, lane: Lane, gone: Refusal) -> None:
        """The session is no more: whatever is unanswered fails with `gone`, and so does every later step."""
        lane.gone = gone
        self._lanes.discard(lane)
        self._outbox.detach(lane)
        fail(lane.log.clear(), gone)

    def send(self, lane: Lane, length: int, inputs: tuple[bytes, ...]) -> Chunk[Reply]:
        """Send a new chunk; its reply is settled once, with the outputs or an error.

        Raises:
            SessionGoneError: the session is no more.
            ClientClosedError: so is the client.
        """
        if self._closed:
            raise ClientClosedError("the client is closed")
        if lane.gone is not None:
            raise lane.gone.to_error()
        loop = asyncio.get_running_loop()
        chunk = lane.log.add(length, inputs, lane.model.answer_bytes(length), loop.create_future())
        self._offer(lane)
        if self._task is None:
            self._task = loop.create_task(self._run())
        return chunk

    async def close(self) -> None:
        """End the stream. Whatever is unanswered fails with `ClientClosedError`."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for chunk in self._give_up():
            settle(chunk, ClientClosedError(f"step {chunk.first}: the client was closed; {UNKNOWN}"))

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            end = await self._one_stream()
            self.trouble = end.message
            if end.code in _LASTING:
                fail(self._give_up(), end._replace(message=f"{end.message}; {UNKNOWN}"))
            self._start_over()
            await asyncio.sleep(self._backoff.next_s())

    async def _one_stream(self) -> Refusal:
        """Use one stream to its end; returns what ended it."""
        call = self._stream()
        writer = asyncio.create_task(self._write(call))
        try:
            while isinstance(response := await call.read(), StreamResponse):
                self._receive(response)
                if (self._draining or self._outbox.spent) and not self._outbox.owed:
                    return _ending(_Code.UNAVAILABLE, "the stream was left for a new one")
        except grpc.aio.AioRpcError as error:
            return Refusal.of_call(error)
        except FrameError as error:
            return _ending(_Code.INTERNAL, f"an answer cannot be read: {error}")
        finally:
            writer.cancel()
            call.cancel()
            await asyncio.wait([writer])
        return _ending(_Code.OK, "the server ended the stream")

    async def _write(self, call: "Call") -> None:
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                while (request := self._outbox.next_request()) is not None:
                    await call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the stream has ended, and the reader learns how

    def _start_over(self) -> None:
        self._outbox = Outbox()
        self._draining = False
        self._work.clear()
        for lane in self._lanes:
            lane.handle = UNATTACHED
            lane.log.disconnected()
            self._offer(lane)

    def _offer(self, lane: Lane) -> None:
        if lane.log.sendable:
            self._outbox.add(lane)
            self._work.set()

    def _receive(self, response: StreamResponse) -> None:
        if response.HasField("attached"):
            self._on_attached(response.attached)
        else:
            self._on_answers(response.answers)

    def _on_attached(self, attached: Attached) -> None:
        for error in attached.errors:
            lane = self._outbox.lane(attached.first_handle + error.position)
            refusal = Refusal.of_chunk(error)
            if lane is not None and refusal.passing:
                self._outbox.detach(lane)
                lane.log.disconnected()
                lane.log.hold()
                lane.refusal = refusal
                self._resume_if_settled(lane)
            elif lane is not None:
                self.leave(lane, refusal)

    def _on_answers(self, frame: AnswerFrame) -> None:
        self._outbox.owed -= len(frame.handles)
        for answer in answers(frame, self._outbox.lane):
            if isinstance(answer.outcome, Refusal):
                self._on_refusal(answer, answer.outcome)
            else:
                self._on_outputs(answer, answer.outcome, frame.version)
            self._resume_if_settled(answer.lane)
            self._offer(answer.lane)
        if self._outbox.waiting:  # the stream has room for chunks of other sessions now
            self._work.set()

    def _on_outputs(self, answer: Answer, outputs: Arrays, version: str) -> None:
        lane = answer.lane
        chunk = lane.log.answered(answer.first)
        if chunk is None:
            return
        lane.version = version
        lane.refusal = None
        lane.backoff.reset()
        self._backoff.reset()
        self.trouble = ""
        if chunk.length == answer.length:
            settle(chunk, outputs)
        else:
            settle(
                chunk,
                ServerFailedError(f"step {chunk.first}: expected {chunk.length} steps, came {answer.length}"),
            )

    def _on_refusal(self, answer: Answer, refusal: Refusal) -> None:
        lane = answer.lane
        if refusal.passing or refusal.reason == Reason.QUOTA_EXCEEDED:  # of chunks, quotas are rates
            lane.refusal = refusal
            lane.log.refused(answer.first)
            self._draining = self._draining or refusal.reason == Reason.DRAINING
        elif refusal.reason == Reason.INDEX_UNEXPECTED:
            fail_first(lane.log.unexpected(answer.first, refusal.expected_index), refusal)
        elif isinstance(refusal.to_error(), SessionGoneError):
            self.leave(lane, refusal)
        else:
            fail_first(lane.log.failed(answer.first), refusal)

    def _resume_if_settled(self, lane: Lane) -> None:
        if lane.log.settled:
            delay_s = lane.backoff.next_s() if lane.refusal is not None else 0.0
            asyncio.get_running_loop().call_later(delay_s, self._resume, lane)

    def _resume(self, lane: Lane) -> None:
        lane.log.resume()
        self._offer(lane)

    def _give_up(self) -> list[Chunk[Reply]]:
        return [chunk for lane in self._lanes for chunk in lane.log.clear()]


def _ending(code: grpc.StatusCode, message: str) -> Refusal:
    return Refusal(code.value[0], Reason.REASON_UNSPECIFIED, message)
