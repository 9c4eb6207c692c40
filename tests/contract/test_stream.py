"""The stream as its comments in the .proto file promise it, over a real server."""

import asyncio

import grpc
import numpy as np
import pytest

from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2 import Reason
from tests.wire import V, answers, attach, converse, errors, open_session, steps, tokens


async def undisturbed(stub, values: list[int]) -> np.ndarray:
    """The answers of a fresh session to the same steps, one at a time."""
    session = await open_session(stub)
    requests = [steps([0], [index], [[value]], [max(0, index - 7)]) for index, value in enumerate(values[:8])]
    got = answers(await converse(stub, attach(session), *requests))
    return np.concatenate([got[0, index] for index in range(len(values[:8]))])


async def test_one_frame_advances_many_sessions_and_each_gets_its_own_answer(stub) -> None:
    sessions = [await open_session(stub) for _ in range(5)]
    chunks = [[1, 2, 3], [4], [5, 6, 7, 8, 9], [1], [2, 2]]
    got = answers(await converse(stub, attach(*sessions), steps([0, 1, 2, 3, 4], [0] * 5, chunks)))
    for handle, chunk in enumerate(chunks):
        np.testing.assert_array_equal(got[handle, 0], await undisturbed(stub, chunk))


async def test_absent_columns_mean_one_step_each_and_unnumbered(stub) -> None:
    session = await open_session(stub)
    frame = pb.StreamRequest(steps=pb.StepFrame(handles=[0], inputs=tokens(7)))
    got = answers(await converse(stub, attach(session), frame, frame))
    np.testing.assert_array_equal(np.concatenate([got[0, 0], got[0, 1]]), await undisturbed(stub, [7, 7]))


async def test_results_are_bit_identical_for_any_batch_mates_and_chunking(stub) -> None:
    rng = np.random.default_rng(3)
    values = rng.integers(0, V, 40).tolist()
    whole_session, cut_session, *others = [await open_session(stub) for _ in range(12)]
    whole = answers(await converse(stub, attach(whole_session), steps([0], [0], [values])))[0, 0]
    call = stub.Stream()
    await call.write(attach(cut_session, *others))
    await call.read()
    parts, index, noise = [], 0, [0] * len(others)
    while index < len(values):
        length = min(int(rng.integers(1, 6)), len(values) - index)
        mates = [k for k in range(len(others)) if rng.random() < 0.6]
        chunks = [
            values[index : index + length],
            *(rng.integers(0, V, rng.integers(1, 6)).tolist() for _ in mates),
        ]
        firsts = [index, *(noise[k] for k in mates)]
        await call.write(steps([0, *(k + 1 for k in mates)], firsts, chunks, firsts))
        for k, chunk in zip(mates, chunks[1:], strict=True):
            noise[k] += len(chunk)
        got: dict = {}
        while len(got) < len(chunks):
            got |= answers([await call.read()])
        parts.append(got[0, index])
        index += length
    await call.done_writing()
    assert await call.read() == grpc.aio.EOF
    np.testing.assert_array_equal(np.concatenate(parts), whole)


async def test_a_chunk_sent_again_on_another_stream_is_applied_once(stub, server) -> None:
    session = await open_session(stub)
    first = answers(await converse(stub, attach(session), steps([0], [0], [[3, 4]])))
    again = answers(await converse(stub, attach("nobody", session), steps([1], [0], [[3, 4]])))
    np.testing.assert_array_equal(first[0, 0], again[1, 0])
    described = await stub.Describe(pb.DescribeRequest(session=session))
    assert (described.next_index, described.kept_answers, described.kept_bytes) == (2, 1, 2 * V * 4)
    assert server.metrics.registry.get_sample_value("carousel_steps_total", {"model": "tiny/1"}) == 2


async def test_attaching_tells_the_next_index_and_what_could_not_be_attached(stub) -> None:
    session = await open_session(stub)
    await converse(stub, attach(session), steps([0], [0], [[1, 2, 3]]))
    closed = await open_session(stub)
    await stub.Close(pb.CloseRequest(session=closed))
    (response,) = await converse(stub, attach("nobody", session, closed))
    assert response.attached.first_handle == 0
    assert list(response.attached.next_indices) == [0, 3, 0]
    assert [(error.position, error.reason) for error in response.attached.errors] == [
        (0, Reason.SESSION_NOT_FOUND),
        (2, Reason.SESSION_CLOSED),
    ]


async def test_errors_of_single_chunks_are_sparse_and_leave_their_neighbours_alone(stub) -> None:
    sessions = [await open_session(stub) for _ in range(4)]
    await stub.Close(pb.CloseRequest(session=sessions[1]))
    request = steps([0, 1, 2, 3, 9], [0, 0, 5, 0, 0], [[1], [1], [1], [V], [1]])
    responses = await converse(stub, attach(*sessions), request)
    assert set(answers(responses)) == {(0, 0)}
    found = errors(responses)
    assert {key: error.reason for key, error in found.items()} == {
        (1, 0): Reason.SESSION_CLOSED,
        (2, 5): Reason.INDEX_UNEXPECTED,
        (3, 0): Reason.INVALID_INPUT,
        (9, 0): Reason.INVALID_INPUT,
    }
    assert found[2, 5].code == grpc.StatusCode.ABORTED.value[0]
    assert found[2, 5].expected_index == 0
    assert found[3, 0].message == f"tokens: expected tokens 0 to {V - 1}, got {V}"
    assert "one of the 4 attached" in found[9, 0].message


async def test_other_content_at_a_known_index_is_refused_in_band(stub) -> None:
    session = await open_session(stub)
    responses = await converse(stub, attach(session), steps([0], [0], [[1]]), steps([0], [0], [[2]]))
    assert [error.reason for error in errors(responses).values()] == [Reason.CONTENT_DIFFERS]
    assert len(answers(responses)) == 1


async def test_a_window_of_unacknowledged_answers_is_kept_and_not_more(stub) -> None:
    session = await open_session(stub)
    requests = [steps([0], [index], [[1]]) for index in range(9)]
    responses = await converse(stub, attach(session), *requests)
    assert set(answers(responses)) == {(0, index) for index in range(8)}
    assert errors(responses)[0, 8].reason == Reason.WINDOW_FULL
    replayed = answers(await converse(stub, attach(session), *requests[:8]))
    assert set(replayed) == set(answers(responses))


FRAMES = {
    "an empty frame": (pb.StepFrame(), "handles: expected at least one chunk"),
    "columns of unequal length": (
        pb.StepFrame(handles=[0], lengths=[1, 1], inputs=tokens(1)),
        "lengths: expected 1 entries",
    ),
    "first indices of another length": (
        pb.StepFrame(handles=[0], first_indices=[0, 1], inputs=tokens(1)),
        "first_indices: expected 1 entries",
    ),
    "acknowledgements of another length": (
        pb.StepFrame(handles=[0], acknowledged=[0, 1], inputs=tokens(1)),
        "acknowledged: expected 1 entries",
    ),
    "a chunk of no steps": (pb.StepFrame(handles=[0], lengths=[0]), "lengths: expected 1 step or more"),
    "no tensor": (pb.StepFrame(handles=[0]), "tokens: the tensor is missing"),
    "a blob of a wrong length": (
        pb.StepFrame(handles=[0], inputs=[pb.Tensor(name="tokens", data=b"1234567")]),
        "expected 1 x [] x int64 = 8 bytes, came 7",
    ),
    "a blob of another dtype": (
        pb.StepFrame(handles=[0], inputs=[pb.Tensor(name="tokens", data=np.float32(1).tobytes())]),
        "expected 1 x [] x int64 = 8 bytes, came 4",
    ),
    "an unknown tensor": (
        pb.StepFrame(handles=[0], inputs=[*tokens(1), pb.Tensor(name="x")]),
        "x: unknown tensor, expected tokens",
    ),
    "a tensor with a name of 5 MB": (
        pb.StepFrame(handles=[0], inputs=[*tokens(1), pb.Tensor(name="x" * 5_000_000)]),
        "...",
    ),
    "a tensor given twice": (
        pb.StepFrame(handles=[0], inputs=[*tokens(1), *tokens(1)]),
        "tokens: the tensor is given twice",
    ),
    "too many chunks": (pb.StepFrame(handles=[0] * 1025, inputs=tokens(*[1] * 1025)), "at most 1024 chunks"),
}


@pytest.mark.parametrize("what", FRAMES)
async def test_a_frame_that_cannot_be_taken_apart_ends_its_stream_and_nothing_else(stub, what: str) -> None:
    frame, message = FRAMES[what]
    session = await open_session(stub)
    bystander = stub.Stream()
    await bystander.write(attach(session))
    await bystander.read()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await converse(stub, attach(session), pb.StreamRequest(steps=frame))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert message in caught.value.details()
    assert ("carousel-reason", "INVALID_INPUT") in tuple(caught.value.trailing_metadata())
    await bystander.write(steps([0], [0], [[1]]))
    assert answers([await bystander.read()])
    await bystander.done_writing()


async def test_a_fault_right_behind_good_frames_ends_the_stream_while_answers_are_being_written(stub) -> None:
    bad = pb.StreamRequest(steps=pb.StepFrame(handles=[0], inputs=[*tokens(1), *tokens(1)]))
    for _ in range(50):
        session = await open_session(stub)
        with pytest.raises(grpc.aio.AioRpcError, match="given twice"):
            async with asyncio.timeout(5):
                await converse(stub, attach(session), steps([0], [0], [[1]]), attach(session), bad)


async def test_a_request_without_a_kind_ends_the_stream(stub) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="expected attach or steps"):
        await converse(stub, pb.StreamRequest())


async def test_a_chunk_beyond_the_limit_is_refused_with_the_limit_that_clients_are_told(stub) -> None:
    limits = (await stub.ListModels(pb.ListModelsRequest())).models[0].limits
    session = await open_session(stub)
    responses = await converse(stub, attach(session), steps([0], [0], [[1] * (limits.chunk_steps + 1)]))
    assert f"at most {limits.chunk_steps} steps" in errors(responses)[0, 0].message
    responses = await converse(stub, attach(session), steps([0], [0], [[1] * limits.chunk_steps]))
    assert len(answers(responses)[0, 0]) == limits.chunk_steps


async def test_an_oversized_message_is_refused_and_the_session_lives(stub) -> None:
    session = await open_session(stub)
    huge = pb.StreamRequest(
        steps=pb.StepFrame(handles=[0], inputs=[pb.Tensor(name="tokens", data=bytes(17 << 20))])
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await converse(stub, attach(session), huge)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert answers(await converse(stub, attach(session), steps([0], [0], [[1]])))


async def test_a_client_that_vanishes_in_the_middle_harms_nobody(stub, server) -> None:
    left, stays = await open_session(stub), await open_session(stub)
    vanishing = stub.Stream()
    await vanishing.write(attach(left))
    await vanishing.write(steps([0], [0], [[1] * 4000]))
    staying = asyncio.create_task(converse(stub, attach(stays), steps([0], [0], [[1] * 4000])))
    await asyncio.sleep(0.01)
    vanishing.cancel()
    assert len(answers(await staying)[0, 0]) == 4000
    while server.engine.queue.chunks:
        await asyncio.sleep(0.001)
    index = (await stub.Describe(pb.DescribeRequest(session=left))).next_index
    assert index in (0, 4000)
    got = answers(await converse(stub, attach(left), steps([0], [0], [[1] * 4000])))
    assert len(got[0, 0]) == 4000


async def test_a_client_that_does_not_read_is_not_read_from(stub, server) -> None:
    sessions = [await open_session(stub) for _ in range(64)]
    call = stub.Stream()
    await call.write(attach(*sessions))

    async def flood() -> None:
        for index in range(0, 2_000_000, 64):
            await call.write(steps(list(range(64)), [index] * 64, [[1] * 64] * 64, [index] * 64))

    flooding = asyncio.create_task(flood())
    peak = 0
    for _ in range(60):
        await asyncio.sleep(0.01)
        peak = max(peak, server.engine.queue.chunks)
    assert not flooding.done()
    assert peak <= 1024 + 64
    flooding.cancel()
    call.cancel()
    await asyncio.gather(flooding, return_exceptions=True)
