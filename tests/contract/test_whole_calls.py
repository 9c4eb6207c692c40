"""Models that need all of their input at once: listed, run by `Infer`, and everything that they refuse."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest

from carousel.contract import Contract
from carousel.wire import carousel_pb2 as pb
from export.options import PLAIN
from export.tasks import step_model
from service import whole_calls
from tests.house import ALICE, QUOTA, identities, refused
from tests.house import serving as house_serving
from tests.models import tiny_characters, tiny_checkpoint
from tests.ports_model import save, serving
from tests.whole import CLASSES, SYMBOLS, both_ways, draw, tree, write

T_MOST = 64
"""Steps and nodes that both models were verified for."""
ALL_MOST = 128
"""Steps of all sequences of a call, with the settings below."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    save(step_model(tiny_checkpoint(hidden=8), PLAIN), folder, "tiny")
    draw(folder, "both", both_ways())
    draw(folder, "once", both_ways(each=False))
    draw(folder, "tree", tree())
    return folder


@pytest.fixture
async def served(models: Path) -> AsyncIterator[SimpleNamespace]:
    async with serving(models, max_batch=8, run_steps=16) as (server, stub):
        yield SimpleNamespace(server=server, stub=stub)


def array(name: str, values: Any, dtype: str, shape: list[int] | None = None) -> pb.Array:
    values = np.asarray(values, dtype)
    return pb.Array(name=name, shape=values.shape if shape is None else shape, data=values.tobytes())


def tokens(*rows: list[int]) -> pb.Array:
    return array("tokens", rows, "<i8")


def forest(nodes: int = 3, children: Any = ((-1, -1, -1), (0, -1, -1), (1, -1, 0))) -> list[pb.Array]:
    x = np.linspace(-1, 1, nodes * 5).reshape(nodes, 5)
    return [array("x", x, "<f4"), array("children", children, "<i4")]


def one_token() -> pb.Tensor:
    return pb.Tensor(name="tokens", data=bytes(8))


async def infer(stub: Any, model: str, *inputs: pb.Array, **fields: Any) -> pb.InferResponse:
    return await stub.Infer(pb.InferRequest(model=model, inputs=inputs, **fields))


async def refusal(call: Any) -> tuple[str, str, str]:
    """Code, reason and message."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    trailing = dict(refused.value.trailing_metadata())
    return refused.value.code().name, trailing["carousel-reason"], refused.value.details()


def metric(server: Any, name: str, **labels: str) -> float:
    return server.metrics.registry.get_sample_value(name, labels) or 0.0


async def test_they_are_listed_beside_the_others_with_their_contracts(served) -> None:
    listed = (await served.stub.ListModels(pb.ListModelsRequest())).models
    told = {model.name: model for model in listed}
    assert {name: Contract.from_json(one.contract).kind for name, one in told.items()} == {
        "tiny": "step",
        "both": "whole",
        "once": "whole",
        "tree": "whole",
    }
    assert all(model.state == pb.Model.SERVING for model in listed)
    assert told["both"].limits.message_bytes == told["tiny"].limits.message_bytes
    assert metric(served.server, "carousel_models", state="serving") == 4


async def test_an_answer_has_a_shape_a_model_and_a_version(served) -> None:
    answer = await infer(served.stub, "both", tokens([1, 2, 3], [4, 5, 6]))
    assert (answer.model, answer.version) == ("both", "1")
    (y,) = answer.outputs
    assert (y.name, list(y.shape), len(y.data)) == ("y", [2, 3, CLASSES], 2 * 3 * CLASSES * 4)
    once = await infer(served.stub, "once", tokens([1, 2, 3], [4, 5, 6]), version="1")
    assert list(once.outputs[0].shape) == [2, CLASSES]
    nodes = await infer(served.stub, "tree", *forest())
    assert list(nodes.outputs[0].shape) == [3, CLASSES]
    assert metric(served.server, "carousel_run_duration_seconds_count", model="both/1") == 1
    assert metric(served.server, "carousel_requests_total", method="Infer", code="OK") == 3


async def test_rows_that_end_earlier_do_not_feel_their_padding(served) -> None:
    short = await infer(served.stub, "both", tokens([1, 2]))
    lengths = array("lengths", [4, 2], "<i4")
    padded = await infer(served.stub, "both", tokens([3, 4, 5, 6], [1, 2, 6, 6]), lengths)
    second = np.frombuffer(padded.outputs[0].data, "<f4").reshape(2, 4, CLASSES)[1, :2]
    assert short.outputs[0].data == second.tobytes()


WRONG: dict[str, tuple[str, list[pb.Array], str]] = {
    "no input": ("both", [], "tokens: the array is missing"),
    "unknown": ("both", [array("z", [1], "<i8")], "z: unknown array, expected tokens, lengths"),
    "twice": ("both", [tokens([1]), tokens([1])], "tokens: the array is given twice"),
    "another dtype": (
        "both",
        [array("tokens", [[1, 2]], "<i4")],
        "tokens: expected int64 [1, 2] = 16 bytes, came 8",
    ),
    "too few axes": ("both", [array("tokens", [1], "<i8")], "tokens: expected the shape [B, T], came [1]"),
    "another width": (
        "tree",
        [array("x", np.zeros((1, 4)), "<f4"), forest()[1]],
        "x: expected the shape [N, 5], came [1, 4]",
    ),
    "more than it says": (
        "both",
        [array("tokens", [[1, 2]], "<i8", [1, 1])],
        "tokens: expected int64 [1, 1] = 8 bytes, came 16",
    ),
    "a size nobody has": (
        "both",
        [array("tokens", [[1]], "<i8", [1 << 63, 1 << 63])],
        f"tokens: expected int64 [{1 << 63}, {1 << 63}] = {8 << 126} bytes, came 8",
    ),
    "no end of axes": (
        "both",
        [pb.Array(name="tokens", shape=[1] * 1000, data=bytes(8))],
        "tokens: expected at most 32 axes, came 1000",
    ),
    "no row": (
        "both",
        [array("tokens", [], "<i8", [0, 3])],
        "tokens: expected a batch axis of 1 or more, came 0",
    ),
    "no step": (
        "both",
        [array("tokens", [], "<i8", [1, 0])],
        "tokens: expected a time axis of 1 or more, came 0",
    ),
    "too long": (
        "both",
        [tokens([1] * (T_MOST + 1))],
        f"expected at most {T_MOST} steps a sequence, came {T_MOST + 1}",
    ),
    "too much": (
        "both",
        [tokens(*[[1] * T_MOST] * 3)],
        f"expected at most {ALL_MOST} steps in all, padding included, came {3 * T_MOST}",
    ),
    "a token of none": ("both", [tokens([1, len(SYMBOLS)])], "tokens: expected tokens 0 to 6, got 7"),
    "a token in the padding": (
        "both",
        [tokens([1, -1]), array("lengths", [1], "<i4")],
        "tokens: expected tokens 0 to 6, got -1",
    ),
    "a length of none": (
        "both",
        [tokens([1, 1]), array("lengths", [0], "<i4")],
        "lengths: expected 1 to 2 steps of each sequence, came 0",
    ),
    "a length beyond": (
        "both",
        [tokens([1, 1]), array("lengths", [3], "<i4")],
        "lengths: expected 1 to 2 steps of each sequence, came 3",
    ),
    "lengths of others": (
        "both",
        [tokens([1, 1]), array("lengths", [2, 2], "<i4")],
        "lengths: expected the shape [1], came [2]",
    ),
    "lengths as int64": (
        "both",
        [tokens([1, 1]), array("lengths", [2], "<i8")],
        "lengths: expected int32 [1] = 4 bytes, came 8",
    ),
    "lengths of trees": (
        "tree",
        [*forest(), array("lengths", [3], "<i4")],
        "lengths: unknown array, expected x, children",
    ),
    "axes that differ": (
        "tree",
        [forest()[0], forest(children=[[-1, -1, -1]])[1]],
        "children: expected a node axis of 3 as in the arrays before, came 1",
    ),
    "too many nodes": (
        "tree",
        forest(T_MOST + 1, np.full((T_MOST + 1, 3), -1)),
        f"expected at most {T_MOST} nodes, came {T_MOST + 1}",
    ),
    "NaN": (
        "tree",
        [array("x", np.full((3, 5), np.nan), "<f4"), forest()[1]],
        "x: expected finite numbers, got nan",
    ),
    "its own child": (
        "tree",
        forest(children=[[-1, -1, -1], [0, 1, -1], [-1, -1, -1]]),
        "children: expected of node 1 numbers of nodes before it, or -1 for none, came 1",
    ),
    "a child that comes later": (
        "tree",
        forest(children=[[-1, -1, 2], [0, -1, -1], [-1, -1, -1]]),
        "children: expected of node 0 numbers of nodes before it, or -1 for none, came 2",
    ),
    "a child of none": (
        "tree",
        forest(children=[[-1, -1, -1], [-2, -1, -1], [-1, -1, -1]]),
        "children: expected of node 1 numbers of nodes before it, or -1 for none, came -2",
    ),
}


async def test_what_does_not_fit_the_contract_is_refused_and_told(served) -> None:
    for what, (model, inputs, words) in WRONG.items():
        assert await refusal(infer(served.stub, model, *inputs)) == (
            "INVALID_ARGUMENT",
            "INVALID_INPUT",
            words,
        ), what
    assert metric(served.server, "carousel_run_duration_seconds_count", model="both/1") == 0


async def test_the_longest_sequence_and_the_largest_batch_are_taken(served) -> None:
    for rows, steps in ((1, T_MOST), (ALL_MOST // T_MOST, T_MOST), (ALL_MOST, 1)):
        (answer,) = (await infer(served.stub, "both", tokens(*[[1] * steps] * rows))).outputs
        assert list(answer.shape)[:2] == [rows, steps]


async def test_an_answer_that_no_message_holds_is_refused_before_it_is_made(models: Path) -> None:
    async with serving(models, max_message_bytes=1 << 16, max_batch=1024) as (_, stub):
        rows = [[1]] * 8000  # 64000 bytes come, 96000 would go
        assert (
            "fits into a message of 65536 bytes, it would have 96000"
            in (await refusal(infer(stub, "both", tokens(*rows))))[2]
        )


async def test_a_model_is_asked_as_its_kind_is(served) -> None:
    with_sessions = infer(served.stub, "tiny", tokens([1]))
    assert await refusal(with_sessions) == (
        "FAILED_PRECONDITION",
        "MODEL_DIFFERS",
        "model 'tiny/1' goes step by step; open a session and step it",
    )
    without = served.stub.Open(pb.OpenRequest(model="tree"))
    assert await refusal(without) == (
        "FAILED_PRECONDITION",
        "MODEL_DIFFERS",
        "model 'tree/1' has no sessions: it needs all of its input at once; use Infer",
    )
    unknown = "model 'none' is not served; served are: both/1, once/1, tiny/1, tree/1"
    for call in (infer(served.stub, "none"), served.stub.Open(pb.OpenRequest(model="none"))):
        assert await refusal(call) == ("NOT_FOUND", "MODEL_NOT_FOUND", unknown)
    assert (await refusal(infer(served.stub, "both", tokens([1]), version="2")))[1] == "MODEL_NOT_FOUND"


async def test_a_version_takes_over_at_once_and_can_be_unloaded(tmp_path: Path) -> None:
    write(tmp_path, "both", both_ways())
    async with serving(tmp_path) as (_, stub):
        before = await infer(stub, "both", tokens([1, 2]))
        write(tmp_path, "both", both_ways(seed=1), version=2)
        loaded = await stub.LoadModel(pb.LoadModelRequest(name="both"))
        assert (loaded.model.version, loaded.model.state, loaded.took_over) == ("2", pb.Model.SERVING, False)
        after = await infer(stub, "both", tokens([1, 2]))
        assert after.version == "2"
        assert after.outputs[0].data != before.outputs[0].data
        assert [model.version for model in (await stub.ListModels(pb.ListModelsRequest())).models] == ["2"]

        # Of another kind: what it was is gone.
        tiny_characters(tmp_path, name="both", hidden=8, version=3)
        await stub.LoadModel(pb.LoadModelRequest(name="both"))
        session = (await stub.Open(pb.OpenRequest(model="both"))).session
        assert (await refusal(infer(stub, "both", tokens([1]))))[1] == "MODEL_DIFFERS"
        await stub.LoadModel(pb.LoadModelRequest(name="both", version="2"))
        assert (await refusal(stub.Open(pb.OpenRequest(model="both"))))[1] == "MODEL_DIFFERS"
        step = pb.StepRequest(session=session, inputs=[one_token()])
        assert (await stub.Step(step)).version == "3"

        assert (await stub.UnloadModel(pb.UnloadModelRequest(name="both", version="2"))).sessions == 0
        assert (await refusal(infer(stub, "both", tokens([1]))))[1] == "MODEL_NOT_FOUND"


async def test_no_more_wait_than_may_and_who_has_left_is_not_run(served, monkeypatch) -> None:
    monkeypatch.setattr(whole_calls, "WAITING", 3)
    engine, held = served.server.engine, []
    dispatch = engine._dispatch
    engine._dispatch = lambda job, done: held.append((job, done))
    calls = [asyncio.ensure_future(infer(served.stub, "both", tokens([1, 2, k]))) for k in range(3)]
    while engine.waiting_errands < 2:
        await asyncio.sleep(0.01)
    assert await refusal(infer(served.stub, "both", tokens([1]))) == (
        "RESOURCE_EXHAUSTED",
        "QUEUE_FULL",
        "3 whole inputs wait for their turn, which is as many as may; try again",
    )
    late = pb.InferRequest(model="both", inputs=[tokens([1])])
    calls[1].cancel()
    while metric(served.server, "carousel_requests_total", method="Infer", code="CANCELLED") < 1:
        await asyncio.sleep(0.01)
    with pytest.raises(grpc.aio.AioRpcError, match="DEADLINE_EXCEEDED"):
        await served.stub.Infer(late, timeout=0.1)
    while metric(served.server, "carousel_requests_total", method="Infer", code="DEADLINE_EXCEEDED") < 1:
        await asyncio.sleep(0.01)
    engine._dispatch = dispatch
    dispatch(*held[0])
    assert [len((await calls[k]).outputs) for k in (0, 2)] == [1, 1]
    while engine.waiting_errands:
        await asyncio.sleep(0.01)
    assert metric(served.server, "carousel_run_duration_seconds_count", model="both/1") == 2


async def test_a_step_waits_for_one_whole_input_however_many_came_before_it(served, monkeypatch) -> None:
    session = (await served.stub.Open(pb.OpenRequest(model="tiny"))).session
    engine, held, order = served.server.engine, [], list[str]()
    backend, graph = engine.models.find("tiny").backend, engine.models.find_whole("both").graph

    def noting(what: str, run: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *inputs: (order.append(what), run(*inputs))[1]

    monkeypatch.setattr(backend, "run", noting("step", backend.run))
    monkeypatch.setattr(graph, "run", noting("whole", graph.run))
    dispatch = engine._dispatch
    engine._dispatch = lambda job, done: held.append((job, done))
    wholes = [asyncio.ensure_future(infer(served.stub, "both", tokens([k]))) for k in range(5)]
    while engine.waiting_errands < 4:
        await asyncio.sleep(0.01)
    step = asyncio.ensure_future(served.stub.Step(pb.StepRequest(session=session, inputs=[one_token()])))
    while not engine.queue.chunks:
        await asyncio.sleep(0.01)
    engine._dispatch = dispatch
    dispatch(*held[0])
    await asyncio.gather(step, *wholes)
    assert order == ["whole", "step", "whole", "whole", "whole", "whole"]


async def test_a_run_that_fails_is_told_logged_and_counted(served, monkeypatch) -> None:
    model = served.server.engine.models.find_whole("both")
    monkeypatch.setattr(model.graph, "_session", None)
    assert await refusal(infer(served.stub, "both", tokens([1]))) == (
        "INTERNAL",
        "BACKEND_FAILED",
        "inference failed; nothing was applied",
    )
    assert metric(served.server, "carousel_failed_runs_total", model="both/1") == 1


async def test_a_server_that_goes_down_takes_no_whole_inputs(served) -> None:
    served.server.engine.rules.draining = True
    assert (await refusal(infer(served.stub, "both", tokens([1]))))[:2] == ("UNAVAILABLE", "DRAINING")


async def test_a_quota_of_steps_counts_those_of_whole_inputs(models: Path, tmp_path: Path) -> None:
    quota = identities(alice="steps_per_s = 4")
    async with house_serving(models, tmp_path / "i.toml", quota) as house, house.stub(ALICE) as alice:
        await infer(alice, "both", tokens([1, 2], [3, 4]))
        async with refused(*QUOTA) as message:
            await infer(alice, "both", tokens([1, 2], [3, 4]))
        assert "steps: your quota is 4 a second" in message[0]


def test_the_operations_page_says_how_many_may_wait() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
    assert f"At most {whole_calls.WAITING} wait, more are refused" in page.read_text()
