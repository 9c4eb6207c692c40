"""What goes out on one stream: attachments first, then columnar frames of one model each. Pure."""

from collections import deque

from carousel.client.lane import UNATTACHED, Lane, Reply
from carousel.client.served import CHUNKS_A_MESSAGE
from carousel.client.session_log import Chunk
from carousel.wire.carousel_pb2 import Attach, StepFrame, StreamRequest

FRAME_CHUNKS = 1024
STREAM_HANDLES = 1 << 17
"""A server remembers every handle until the stream ends, those of closed sessions too."""

Key = tuple[str, str, bool]
"""Name and version of a model, and whether it is pinned: the chunks of a frame share their tensors."""
Taken = list[tuple[Lane, Chunk[Reply]]]


class Outbox:
    """The lanes with something to send on one stream, and the handles given out on it."""

    def __init__(self) -> None:
        self.owed = 0
        """Chunks sent on this stream that it has not answered."""
        self._lanes: dict[int, Lane] = {}
        self._attached = 0
        self._unattached: deque[Lane] = deque()
        self._ready: dict[Key, deque[Lane]] = {}
        self._queued: set[Lane] = set()

    def add(self, lane: Lane) -> None:
        """The lane may have something to send."""
        if lane in self._queued or not lane.log.sendable:
            return
        self._queued.add(lane)
        self._ready.setdefault(_key(lane), deque()).append(lane)
        if lane.handle == UNATTACHED:
            self._unattached.append(lane)

    def lane(self, handle: int) -> Lane | None:
        """The lane with this handle; None if it has left."""
        return self._lanes.get(handle)

    def detach(self, lane: Lane) -> None:
        """The lane does not use its handle any more."""
        if lane in self._queued:
            self._queued.remove(lane)
            self._ready[_key(lane)].remove(lane)
            if not self._ready[_key(lane)]:
                del self._ready[_key(lane)]
        if lane in self._unattached:
            self._unattached.remove(lane)
        self._lanes.pop(lane.handle, None)
        lane.handle = UNATTACHED

    @property
    def waiting(self) -> bool:
        """Whether there are lanes that had something to send when the stream had no room."""
        return bool(self._ready)

    @property
    def spent(self) -> bool:
        """Whether the stream has given out its handles. It sends no more; a new one must follow."""
        return self._attached >= STREAM_HANDLES

    def next_request(self) -> StreamRequest | None:
        """The next message; None if there is nothing to send, or the stream has all the chunks it may have."""
        if self.spent:
            return None
        if self._unattached:
            return StreamRequest(attach=self._attach())
        for key, lanes in list(self._ready.items()):
            taken = self._take(lanes)
            del self._ready[key]
            if lanes:
                self._ready[key] = lanes  # behind the other models
            if taken:
                self.owed += len(taken)
                return StreamRequest(steps=_frame(taken))
        return None

    def _attach(self) -> Attach:
        attach = Attach()
        while self._unattached and len(attach.sessions) < FRAME_CHUNKS:
            lane = self._unattached.popleft()
            attach.sessions.append(lane.session)
            self._lanes[self._attached] = lane
            lane.handle = self._attached
            self._attached += 1
        return attach

    def _take(self, lanes: deque[Lane]) -> Taken:
        taken: Taken = []
        limits = lanes[0].model.limits
        room_chunks = min(FRAME_CHUNKS, limits.stream_chunks - self.owed)
        room_bytes = limits.message_bytes // CHUNKS_A_MESSAGE
        while lanes and len(taken) < room_chunks and room_bytes >= 0:
            chunk = lanes[0].log.take()
            if chunk is None:
                self._queued.remove(lanes.popleft())
            else:
                taken.append((lanes[0], chunk))
                room_bytes -= sum(map(len, chunk.inputs))
        return taken


def _key(lane: Lane) -> Key:
    return lane.model.name, lane.model.version, lane.pinned


def _frame(taken: Taken) -> StepFrame:
    frame = StepFrame(
        handles=[lane.handle for lane, _ in taken],
        first_indices=[chunk.first for _, chunk in taken],
        lengths=[chunk.length for _, chunk in taken],
        acknowledged=[lane.log.acknowledged for lane, _ in taken],
    )
    blobs = zip(*(chunk.inputs for _, chunk in taken), strict=True)
    for port, parts in zip(taken[0][0].model.contract.inputs, blobs, strict=True):
        frame.inputs.add(name=port.name, data=b"".join(parts))
    return frame
