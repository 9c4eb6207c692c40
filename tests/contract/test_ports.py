"""Ports of every dtype, and what is refused about them and about models, through the real service."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest

from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2 import Reason
from carousel.wire.frames import pack, unpack
from export.draft import Draft
from service.repository import ModelError
from service.server import start_server
from service.settings import Settings
from tests.ports_model import INPUTS, OUTPUTS, every_dtype, followed, odd, save, serving, some_steps
from tests.wire import attach, converse, errors

WINDOW_BYTES = 1 << 20
RUN_STEPS = 7
"""Chunks of 5 and 6 steps share runs, so that ragged ones are padded."""

Sequence = list[np.ndarray]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ports")
    save(every_dtype(), folder, "ports")
    return folder


@pytest.fixture
async def ports(models: Path) -> AsyncIterator[SimpleNamespace]:
    async with serving(models, run_steps=RUN_STEPS, max_batch=8) as (server, stub):
        yield SimpleNamespace(server=server, stub=stub)


async def open_session(stub, model: str = "ports") -> str:
    return (await stub.Open(pb.OpenRequest(model=model))).session


def frame(handles: list[int], firsts: list[int], chunks: list[Sequence]) -> pb.StreamRequest:
    steps = pb.StepFrame(handles=handles, first_indices=firsts, lengths=[len(chunk[0]) for chunk in chunks])
    pack(INPUTS, [np.concatenate(arrays) for arrays in zip(*chunks, strict=True)], steps.inputs)
    return pb.StreamRequest(steps=steps)


def answers(responses: list[pb.StreamResponse]) -> dict[tuple[int, int], Sequence]:
    """Outputs by (handle, first index)."""
    found = {}
    for answered in (response.answers for response in responses if response.answers.outputs):
        arrays = unpack(OUTPUTS, answered.outputs, sum(answered.lengths))
        start = 0
        for handle, first, length in zip(
            answered.handles, answered.first_indices, answered.lengths, strict=True
        ):
            if length:
                found[handle, first] = [array[start : start + length] for array in arrays]
            start += length
    return found


def assert_same(got: Sequence, expected: Sequence) -> None:
    for port, one, other in zip(OUTPUTS, got, expected, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=port.name, strict=True)


async def test_every_dtype_goes_in_and_out_as_numpy_says_however_sessions_are_batched_and_cut(ports) -> None:
    rng = np.random.default_rng(11)
    sessions = [await open_session(ports.stub) for _ in range(5)]
    # Five and six steps share a run, and the shorter is padded.
    cuts = [[5, 9, 14], [6, 10, 15]]
    cuts += [sorted(rng.choice(np.arange(1, 20), 3, replace=False).tolist()) for _ in sessions[2:]]
    sequences = [some_steps(rng, 20) for _ in sessions]
    starts = [[0, *cut] for cut in cuts]
    pieces = [
        [list(part) for part in zip(*(np.split(array, cut) for array in sequence), strict=True)]
        for sequence, cut in zip(sequences, cuts, strict=True)
    ]
    requests = [
        frame(list(range(5)), [start[k] for start in starts], [piece[k] for piece in pieces])
        for k in range(4)
    ]
    got = answers(await converse(ports.stub, attach(*sessions), *requests))
    assert len(got) == 20
    for handle, sequence in enumerate(sequences):
        parts = [got[handle, start] for start in starts[handle]]
        assert_same([np.concatenate(arrays) for arrays in zip(*parts, strict=True)], followed(sequence))
    padding = ports.server.metrics.registry.get_sample_value(
        "carousel_padding_steps_total", {"model": "ports/1"}
    )
    assert padding > 0


async def test_a_unary_step_answers_what_a_stream_answers_whatever_the_order_of_its_tensors(ports) -> None:
    chunk = some_steps(np.random.default_rng(5), 4)
    session = await open_session(ports.stub)
    for cut in (slice(3), slice(3, None)):
        request = pb.StepRequest(session=session, length=len(chunk[0][cut]))
        pack(INPUTS[::-1], [array[cut] for array in chunk[::-1]], request.inputs)
        answer = await ports.stub.Step(request)
        assert [tensor.name for tensor in answer.outputs] == [port.name for port in OUTPUTS]
        got = unpack(OUTPUTS, answer.outputs, answer.length)
        assert_same(got, [array[cut] for array in followed(chunk)])


@pytest.mark.parametrize(
    ("port", "bad", "message"),
    [
        ("flag", 2, "flag: expected bytes 0 and 1 for bool, came others"),
        ("letter", 5, "letter: expected tokens 0 to 4, got 5"),
        ("half", np.inf, "half: expected finite numbers, got inf"),
        ("single", -np.inf, "single: expected finite numbers, got -inf"),
        ("double", np.nan, "double: expected finite numbers, got nan"),
    ],
)
async def test_a_wrong_number_in_any_port_refuses_its_chunk_and_the_neighbours_in_the_frame_go_on(
    ports, port: str, bad: float, message: str
) -> None:
    rng = np.random.default_rng(7)
    sessions = [await open_session(ports.stub) for _ in range(3)]
    chunks = [some_steps(rng, 2) for _ in sessions]
    (position,) = (k for k, one in enumerate(INPUTS) if one.name == port)
    numbers = chunks[1][position].reshape(-1)
    (numbers.view(np.uint8) if port == "flag" else numbers)[-1] = bad
    responses = await converse(ports.stub, attach(*sessions), frame([0, 1, 2], [0, 0, 0], chunks))
    found = errors(responses)
    assert {key: (error.reason, error.message) for key, error in found.items()} == {
        (1, 0): (Reason.INVALID_INPUT, message)
    }
    got = answers(responses)
    assert set(got) == {(0, 0), (2, 0)}
    for handle in (0, 2):
        assert_same(got[handle, 0], followed(chunks[handle]))
    described = await ports.stub.Describe(pb.DescribeRequest(session=sessions[1]))
    assert described.next_index == 0


async def test_no_run_is_longer_than_the_contract_allows(tmp_path: Path) -> None:
    save(every_dtype(max_steps=3), tmp_path, "short")
    save(every_dtype(), tmp_path, "long")
    chunk = some_steps(np.random.default_rng(2), 10)
    async with serving(tmp_path, max_batch=2, run_steps=64) as (server, stub):
        for model, runs in (("short", 4), ("long", 1)):
            session = await open_session(stub, model)
            request = pb.StepRequest(session=session, length=10)
            pack(INPUTS, chunk, request.inputs)
            assert_same(unpack(OUTPUTS, (await stub.Step(request)).outputs, 10), followed(chunk))
            count = server.metrics.registry.get_sample_value(
                "carousel_batch_chunks_count", {"model": f"{model}/1"}
            )
            assert count == runs


def at_most_two_steps(draft: Draft) -> None:
    zero, two = draft.weight("zero", np.array([0])), draft.weight("two", np.array([2]))
    draft.node("Slice", ["x", zero, two, draft.weight("axis", np.array([1]))], ["y"])


def turned_when_longer_than_two(draft: Draft) -> None:
    draft.node("Shape", ["x"], ["T"], start=1)
    draft.node("Greater", ["T", draft.weight("two", np.array([2]))], ["longer"])
    draft.node("Shape", ["x"], ["size"])
    draft.node(
        "Slice",
        ["size", *(draft.weight(n, np.array([v])) for n, v in (("a", 1), ("b", -9), ("c", 0), ("d", -1)))],
        ["turned"],
    )
    draft.node("Where", ["longer", "turned", "size"], ["shape"])
    draft.node("Reshape", ["x", "shape"], ["y"])


@pytest.mark.parametrize("operator", [at_most_two_steps, turned_when_longer_than_two])
async def test_a_graph_that_answers_for_other_steps_than_asked_fails_its_run_and_applies_nothing(
    tmp_path: Path, operator: Callable[[Draft], None]
) -> None:
    save(odd(operator), tmp_path, "odd")
    x = np.arange(3, dtype=np.float32)
    async with serving(tmp_path, max_batch=1) as (_, stub):
        session = await open_session(stub, "odd")
        long = pb.StepRequest(session=session, first_index=0, length=3)
        long.inputs.add(name="x", data=x.tobytes())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Step(long)
        assert caught.value.code() == grpc.StatusCode.INTERNAL
        assert ("carousel-reason", "BACKEND_FAILED") in tuple(caught.value.trailing_metadata())
        short = pb.StepRequest(session=session, first_index=0, length=2)
        short.inputs.add(name="x", data=x[:2].tobytes())
        assert (await stub.Step(short)).outputs[0].data == x[:2].tobytes()


def wide(width: int) -> Callable[[Draft], None]:
    def operator(draft: Draft) -> None:
        draft.node("Unsqueeze", ["x", draft.weight("axis", np.array([2]))], ["x_BT1"])
        draft.node("Mul", ["x_BT1", draft.weight("ones", np.ones(width, np.float32))], ["y"])

    return operator


async def test_a_model_whose_single_answer_just_fits_into_the_window_is_served(tmp_path: Path) -> None:
    width = WINDOW_BYTES // 4
    save(odd(wide(width), width), tmp_path, "wide")
    async with serving(tmp_path, max_batch=1) as (_, stub):
        (model,) = (await stub.ListModels(pb.ListModelsRequest())).models
        assert model.limits.chunk_steps == 1
        request = pb.StepRequest(session=await open_session(stub, "wide"), first_index=0)
        request.inputs.add(name="x", data=np.float32(2).tobytes())
        answer = await stub.Step(request)
        assert np.frombuffer(answer.outputs[0].data, "<f4").tolist() == [2] * width


async def test_a_model_whose_single_answer_exceeds_the_window_is_not_loaded(tmp_path: Path) -> None:
    width = WINDOW_BYTES // 4 + 1
    save(odd(wide(width), width), tmp_path, "wide")
    with pytest.raises(ModelError, match=str(WINDOW_BYTES + 4)):
        await start_server(
            Settings.load({"models": tmp_path, "grpc_port": 0, "http_port": 0, "max_batch": 1})
        )
