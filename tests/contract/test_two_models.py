"""Two models behind one port: the same ports, other weights, and never mixed up."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest

from carousel.contract import Contract
from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2 import Reason
from tests.models import tiny_characters
from tests.ports_model import serving
from tests.wire import V, answers, attach, converse, errors, steps, tokens

NAMES = ("one", "two")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    for seed, name in enumerate(NAMES):
        tiny_characters(folder, hidden=8, seed=seed, name=name, version=seed + 1)
    return folder


@pytest.fixture
async def both(models: Path) -> AsyncIterator[SimpleNamespace]:
    async with serving(models, max_batch=8) as (server, stub):
        yield SimpleNamespace(server=server, stub=stub)


async def open_session(stub, model: str) -> str:
    return (await stub.Open(pb.OpenRequest(model=model))).session


async def alone(stub, model: str, chunk: list[int]) -> np.ndarray:
    """What a session of this model answers when nobody else is there."""
    request = pb.StepRequest(
        session=await open_session(stub, model), length=len(chunk), inputs=tokens(*chunk)
    )
    answer = await stub.Step(request)
    assert answer.model == model
    return np.frombuffer(answer.outputs[0].data, "<f4").reshape(-1, V)


async def test_both_models_are_listed_with_their_versions_and_contracts(both) -> None:
    listed = (await both.stub.ListModels(pb.ListModelsRequest())).models
    assert sorted((model.name, model.version) for model in listed) == [("one", "1"), ("two", "2")]
    assert all(Contract.from_json(model.contract).inputs[0].name == "tokens" for model in listed)


async def test_a_session_belongs_to_the_model_and_version_that_it_was_opened_with(both) -> None:
    for name, version in (("one", "1"), ("two", "2")):
        opened = await both.stub.Open(pb.OpenRequest(model=name))
        described = await both.stub.Describe(pb.DescribeRequest(session=opened.session))
        assert (opened.model, opened.version) == (described.model, described.version) == (name, version)
    with pytest.raises(grpc.aio.AioRpcError, match="served are: one/1, two/2"):
        await both.stub.Open(pb.OpenRequest(model="one", version="2"))


async def test_sessions_of_both_models_are_stepped_on_one_stream_and_each_by_its_own(both) -> None:
    chunks = [[1, 2, 3], [4, 5], [1, 2, 3], [4, 5]]
    expected = [await alone(both.stub, NAMES[handle % 2], chunks[handle]) for handle in range(4)]
    sessions = [await open_session(both.stub, NAMES[handle % 2]) for handle in range(4)]
    requests = [
        steps(handles, [first, first], [chunks[handle][cut] for handle in handles])
        for first, cut in ((0, slice(1)), (1, slice(1, None)))
        for handles in ([0, 2], [1, 3])
    ]
    responses = await converse(both.stub, attach(*sessions), *requests)
    for frame in (response.answers for response in responses if response.answers.handles):
        (model,) = {NAMES[handle % 2] for handle in frame.handles}
        assert (frame.model, frame.version) == (model, str(NAMES.index(model) + 1))
    got = answers(responses)
    for handle in range(4):
        np.testing.assert_array_equal(np.concatenate([got[handle, 0], got[handle, 1]]), expected[handle])
    registry = both.server.metrics.registry
    counted = [
        registry.get_sample_value("carousel_steps_total", {"model": key}) for key in ("one/1", "two/2")
    ]
    assert counted == [4 * 3, 4 * 2]


async def test_models_with_equal_ports_and_other_weights_answer_differently(both) -> None:
    one, two = [await alone(both.stub, name, [1, 2]) for name in NAMES]
    assert not np.isclose(one, two).all(axis=-1).any()


async def test_a_frame_with_sessions_of_both_models_ends_the_stream_and_names_them(both) -> None:
    sessions = [await open_session(both.stub, name) for name in NAMES]
    with pytest.raises(grpc.aio.AioRpcError, match="sessions of one model, got one/1, two/2") as caught:
        await converse(both.stub, attach(*sessions), steps([0, 1], [0, 0], [[1], [1]]))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert ("carousel-reason", "INVALID_INPUT") in tuple(caught.value.trailing_metadata())
    for session in sessions:
        described = await both.stub.Describe(pb.DescribeRequest(session=session))
        assert (described.next_index, described.queued_chunks) == (0, 0)


async def test_a_session_that_is_gone_does_not_lend_its_model_to_a_frame(both) -> None:
    gone, stays = [await open_session(both.stub, name) for name in NAMES]
    call = both.stub.Stream()
    await call.write(attach(gone, stays))
    assert not (await call.read()).attached.errors
    await both.stub.Close(pb.CloseRequest(session=gone))
    await call.write(steps([0, 1], [0, 0], [[1], [2]]))
    await call.done_writing()
    responses = []
    while (response := await call.read()) is not grpc.aio.EOF:
        responses.append(response)
    assert errors(responses)[0, 0].reason == Reason.SESSION_CLOSED
    np.testing.assert_array_equal(answers(responses)[1, 0], await alone(both.stub, "two", [2]))


async def test_many_sessions_of_both_models_step_at_once_and_no_row_is_shared(both) -> None:
    rng = np.random.default_rng(4)
    sequences = [rng.integers(0, V, 6).tolist() for _ in range(24)]
    expected = [await alone(both.stub, NAMES[k % 2], sequence) for k, sequence in enumerate(sequences)]

    async def stepwise(k: int) -> np.ndarray:
        session = await open_session(both.stub, NAMES[k % 2])
        requests = [steps([0], [index], [[token]]) for index, token in enumerate(sequences[k])]
        got = answers(await converse(both.stub, attach(session), *requests))
        return np.concatenate([got[0, index] for index in range(len(sequences[k]))])

    for got, wanted in zip(await asyncio.gather(*map(stepwise, range(24))), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)
