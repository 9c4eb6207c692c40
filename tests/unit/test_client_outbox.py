"""What the client puts on a stream, and how it takes answers apart."""

from asyncio import AbstractEventLoop, new_event_loop
from collections.abc import Iterator

import pytest

from carousel.client.answers import answers
from carousel.client.errors import Refusal
from carousel.client.lane import UNATTACHED, Lane
from carousel.client.outbox import FRAME_CHUNKS, Outbox
from carousel.client.served import Limits, ServedModel
from carousel.client.session_log import SessionLog
from carousel.wire.carousel_pb2 import AnswerFrame, ChunkError, Reason, StreamRequest, Tensor
from carousel.wire.frames import FrameError
from tests.unit.fake_sums import contract

MODEL = ServedModel("sum", "1", contract(), Limits(100, 8, 1 << 20, 1 << 20, 100_000))


@pytest.fixture
def loop() -> Iterator[AbstractEventLoop]:
    loop = new_event_loop()
    yield loop
    loop.close()


def lane_with(loop: AbstractEventLoop, chunks: int, name: str = "s", size_bytes: int = 8) -> Lane:
    lane = Lane(name, MODEL, "1", SessionLog(0, 8, 1 << 20))
    for number in range(chunks):
        lane.log.add(1, (bytes([number]) * size_bytes,), 8, loop.create_future())
    return lane


def drain(outbox: Outbox) -> list[StreamRequest]:
    requests = []
    while (request := outbox.next_request()) is not None:
        requests.append(request)
    return requests


def test_a_session_is_attached_before_its_first_step_and_once(loop: AbstractEventLoop) -> None:
    outbox, lanes = Outbox(), [lane_with(loop, 1, name) for name in "abc"]
    for lane in lanes:
        outbox.add(lane)
        outbox.add(lane)
    attach, steps = drain(outbox)
    assert list(attach.attach.sessions) == ["a", "b", "c"]
    assert list(steps.steps.handles) == [0, 1, 2]
    lanes[1].log.add(1, (bytes(8),), 8, loop.create_future())
    outbox.add(lanes[1])
    (steps,) = drain(outbox)
    assert list(steps.steps.handles) == [1]


def test_blobs_follow_one_another_in_the_order_of_the_chunks(loop: AbstractEventLoop) -> None:
    outbox = Outbox()
    outbox.add(lane_with(loop, 3))
    steps = drain(outbox)[1].steps
    assert list(steps.first_indices) == [0, 1, 2]
    assert steps.inputs[0].data == bytes([0] * 8 + [1] * 8 + [2] * 8)


def test_a_frame_holds_so_many_chunks_and_no_more(loop: AbstractEventLoop) -> None:
    outbox = Outbox()
    for number in range(FRAME_CHUNKS + 1):
        outbox.add(lane_with(loop, 1, str(number)))
    requests = drain(outbox)
    assert [len(request.attach.sessions) for request in requests[:2]] == [FRAME_CHUNKS, 1]
    assert [len(request.steps.handles) for request in requests[2:]] == [FRAME_CHUNKS, 1]


def test_a_frame_stays_below_half_of_a_message(loop: AbstractEventLoop) -> None:
    outbox = Outbox()
    quarter = MODEL.limits.message_bytes // 4
    for number in range(10):
        outbox.add(lane_with(loop, 1, str(number), size_bytes=quarter))
    frames = [request.steps for request in drain(outbox)[1:]]
    assert sum(len(frame.handles) for frame in frames) == 10
    assert max(frame.ByteSize() for frame in frames) <= MODEL.limits.message_bytes * 0.51


def test_a_lane_that_leaves_and_comes_back_gets_a_new_handle(loop: AbstractEventLoop) -> None:
    outbox, lane = Outbox(), lane_with(loop, 2)
    outbox.add(lane)
    outbox.next_request()
    outbox.detach(lane)
    assert lane.handle == UNATTACHED
    assert outbox.lane(0) is None
    assert outbox.next_request() is None
    outbox.add(lane)
    attach, steps = drain(outbox)
    assert list(attach.attach.sessions) == ["s"]
    assert list(steps.steps.handles) == [1, 1]


def test_answers_are_matched_by_position_and_errors_take_no_rows(loop: AbstractEventLoop) -> None:
    lanes = [lane_with(loop, 1, name) for name in "abc"]
    data = MODEL.contract.outputs[0]
    frame = AnswerFrame(handles=[2, 0, 1], first_indices=[5, 6, 7], lengths=[1, 0, 2])
    frame.outputs.append(Tensor(name=data.name, data=bytes(3 * 8)))
    frame.errors.append(ChunkError(position=1, code=8, reason=Reason.QUEUE_FULL, message="full"))
    found = list(answers(frame, lambda handle: lanes[handle]))
    assert [(answer.lane.session, answer.first, answer.length) for answer in found] == [
        ("c", 5, 1),
        ("a", 6, 0),
        ("b", 7, 2),
    ]
    assert found[1].outcome == Refusal(8, Reason.QUEUE_FULL, "full")
    assert isinstance(found[2].outcome, dict)
    assert found[2].outcome["y"].shape == (2, 2)


def test_answers_of_a_session_that_left_are_passed_over_with_their_rows(loop: AbstractEventLoop) -> None:
    lane = lane_with(loop, 1)
    frame = AnswerFrame(handles=[0, 1], first_indices=[0, 0], lengths=[1, 1])
    frame.outputs.append(Tensor(name="y", data=bytes(8) + b"\x00\x00\x80\x3f" * 2))
    (found,) = answers(frame, lambda handle: lane if handle == 1 else None)
    assert isinstance(found.outcome, dict)
    assert found.outcome["y"].tolist() == [[1, 1]]
    assert list(answers(frame, lambda handle: None)) == []


def test_answer_columns_of_unequal_length_are_refused() -> None:
    frame = AnswerFrame(handles=[0, 1], first_indices=[0], lengths=[1, 1])
    with pytest.raises(FrameError, match="columns of 2, 1 and 2 chunks"):
        list(answers(frame, lambda handle: None))
