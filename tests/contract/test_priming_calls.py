"""Sessions that begin with what a priming graph makes of their inputs, and everything that is refused."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
import torch

from carousel.contract import Contract
from carousel.wire import carousel_pb2 as pb
from export.options import PLAIN
from export.tasks import step_model
from service import forms
from service.memory import Memory
from service.opening import ModelError
from tests.models import tiny_checkpoint
from tests.ports_model import save, serving
from tests.whole import MOST_SOURCE, SOURCE, draw, pair


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder-decoder with attention, one without, one that gives NaN, and a model that is not primed."""
    folder = tmp_path_factory.mktemp("primed")
    draw(folder, "reads", pair(attention=True))
    draw(folder, "plain", pair())
    sick = pair(both_ways=True)
    with torch.no_grad():
        sick.model.bridges[1].bias[3] = torch.nan
    draw(folder, "sick", sick)
    save(step_model(tiny_checkpoint(hidden=8), PLAIN), folder, "tiny")
    return folder


@pytest.fixture
async def served(models: Path) -> AsyncIterator[SimpleNamespace]:
    async with serving(models, max_batch=8, max_sessions=6) as (server, stub):
        yield SimpleNamespace(server=server, stub=stub)


def source(*rows: list[int]) -> pb.Array:
    values = np.array(rows, "<i8")
    return pb.Array(name="source", shape=values.shape, data=values.tobytes())


def lengths(*steps: int) -> pb.Array:
    return pb.Array(name="lengths", shape=[len(steps)], data=np.array(steps, "<i4").tobytes())


async def open_session(stub: Any, *priming: pb.Array, model: str = "reads", **fields: Any) -> pb.OpenResponse:
    return await stub.Open(pb.OpenRequest(model=model, priming=priming, **fields))


async def refusal(call: Any) -> tuple[str, str]:
    """Reason and message."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return dict(refused.value.trailing_metadata())["carousel-reason"], refused.value.details()


async def step(stub: Any, session: str, *tokens: int) -> bytes:
    data = np.array(tokens, "<i8").tobytes()
    request = pb.StepRequest(
        session=session, length=len(tokens), inputs=[pb.Tensor(name="tokens", data=data)]
    )
    return (await stub.Step(request)).outputs[0].data


def rows_in_use(served: Any) -> tuple[int, int]:
    """Of states, and of what sessions read."""
    model = served.server.engine.models.find("reads")
    return model.rows.used, model.memory.used


async def test_the_priming_graph_is_listed_with_its_model(served) -> None:
    told = {model.name: model for model in (await served.stub.ListModels(pb.ListModelsRequest())).models}
    assert told["tiny"].priming_contract == ""
    for name in ("reads", "plain"):
        step_graph, priming = map(Contract.from_json, (told[name].contract, told[name].priming_contract))
        assert (priming.kind, priming.primes) == ("priming", step_graph.signature)


async def test_what_a_session_answers_depends_on_what_was_read_and_on_nothing_behind_its_end(served) -> None:
    one = await open_session(served.stub, source([1, 2, 3]))
    assert (one.model, one.version, one.next_index) == ("reads", "1", 0)
    padded = await open_session(served.stub, source([1, 2, 3, 5]), lengths(3))
    other = await open_session(served.stub, source([1, 2, 3, 5]))
    answers = [await step(served.stub, opened.session, 0, 1) for opened in (one, padded, other)]
    assert answers[0] == answers[1] != answers[2]


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing": (
        {},
        "MODEL_DIFFERS",
        "model 'reads/1' needs priming inputs (source) or a snapshot, came neither",
    ),
    "for a model without": (
        {"model": "tiny", "priming": [source([1])]},
        "MODEL_DIFFERS",
        "priming: expected none, for model 'tiny/1' has no priming graph",
    ),
    "and a snapshot": (
        {"priming": [source([1])], "snapshot": b"CAROUSEL"},
        "INVALID_INPUT",
        "expected priming inputs or a snapshot, came both",
    ),
    "of two": (
        {"priming": [source([1])] * 2},
        "INVALID_INPUT",
        "source: the array is given twice",
    ),
    "too long": (
        {"priming": [source([1] * (MOST_SOURCE + 1))]},
        "INVALID_INPUT",
        f"expected at most {MOST_SOURCE} steps a sequence, came {MOST_SOURCE + 1}",
    ),
    "too many": (
        {"priming": [source([1], [2])]},
        "INVALID_INPUT",
        "priming: expected one sequence, came 2",
    ),
    "unknown": (
        {"priming": [lengths(1), pb.Array(name="other")]},
        "INVALID_INPUT",
        "other: unknown array, expected source, lengths",
    ),
    "a token of none": (
        {"priming": [source([len(SOURCE)])]},
        "INVALID_INPUT",
        f"source: expected tokens 0 to {len(SOURCE) - 1}, got {len(SOURCE)}",
    ),
    "what becomes NaN": (
        {"model": "sick", "priming": [source([1])]},
        "STATE_NOT_FINITE",
        "priming would make the state NaN or infinite; no session was opened",
    ),
    "an id that is taken": (
        {"priming": [source([1])], "session": "taken"},
        "SESSION_EXISTS",
        "session 'taken' exists; attach to it, or close it first",
    ),
}


async def test_what_cannot_begin_a_session_is_refused_and_takes_no_row(served) -> None:
    await open_session(served.stub, source([1]), session="taken")
    for what, (fields, reason, words) in WRONG.items():
        request = pb.OpenRequest(**{"model": "reads", **fields})
        assert await refusal(served.stub.Open(request)) == (reason, words), what
    assert rows_in_use(served) == (1, 1)
    assert len(served.server.engine.table) == 1


async def test_a_repeated_open_gives_the_session_of_the_first_and_another_source_is_told(served) -> None:
    runs = 0
    graph = served.server.engine.models.find("reads").priming
    run = graph.run

    def counted(inputs: Any) -> Any:
        nonlocal runs
        runs += 1
        return run(inputs)

    graph.run = counted
    calls = [open_session(served.stub, source([1, 2]), request_id="mine") for _ in range(3)]
    assert len({opened.session for opened in await asyncio.gather(*calls)}) == 1
    assert runs == 1
    assert (await refusal(open_session(served.stub, source([1, 3]), request_id="mine")))[
        0
    ] == "CONTENT_DIFFERS"
    assert rows_in_use(served) == (1, 1)


async def test_rows_go_when_the_last_session_that_reads_them_goes(served) -> None:
    first = (await open_session(served.stub, source([1, 2, 3]))).session
    copies = (await served.stub.Fork(pb.ForkRequest(session=first, count=3))).copies
    other = (await open_session(served.stub, source([5]))).session
    snapshot = (await served.stub.Snapshot(pb.SnapshotRequest(session=first))).snapshot
    assert rows_in_use(served) == (5, 2)

    expected = await step(served.stub, first, 0, 1)
    await served.stub.Close(pb.CloseRequest(session=first))
    await served.stub.Restore(pb.RestoreRequest(session=other, snapshot=snapshot))
    assert rows_in_use(served) == (4, 2)
    assert await step(served.stub, other, 0, 1) == expected
    for copy in copies:
        assert await step(served.stub, copy, 0, 1) == expected
        await served.stub.Close(pb.CloseRequest(session=copy))
    assert rows_in_use(served) == (1, 1)
    await served.stub.Close(pb.CloseRequest(session=other))
    assert rows_in_use(served) == (0, 0)


async def test_as_many_sessions_as_there_may_be_each_read_their_own(served) -> None:
    opened = [(await open_session(served.stub, source([k]))).session for k in range(6)]
    assert (await refusal(open_session(served.stub, source([1]))))[0] == "SESSION_LIMIT"
    snapshot = (await served.stub.Snapshot(pb.SnapshotRequest(session=opened[0]))).snapshot
    await served.stub.Restore(pb.RestoreRequest(session=opened[5], snapshot=snapshot))
    assert rows_in_use(served) == (6, 6)
    answers = [await step(served.stub, session, 0, 1) for session in opened]
    assert len(set(answers)) == 5
    assert answers[5] == answers[0]


async def test_a_snapshot_holds_what_its_session_reads_and_is_refused_without(served, models: Path) -> None:
    session = (await open_session(served.stub, source([1, 2, 3]))).session
    snapshot = (await served.stub.Snapshot(pb.SnapshotRequest(session=session))).snapshot
    model = served.server.engine.models.find("reads")
    assert len(snapshot) > model.session_bytes > model.row_bytes
    plain = (await open_session(served.stub, source([1]), model="plain")).session
    short = (await served.stub.Snapshot(pb.SnapshotRequest(session=plain))).snapshot
    assert (await refusal(open_session(served.stub, model="reads", snapshot=short)))[0] == "MODEL_DIFFERS"


async def test_a_graph_that_cannot_be_run_opens_nothing(served, monkeypatch) -> None:
    monkeypatch.setattr(served.server.engine.models.find("reads").priming, "_session", None)
    told = await refusal(open_session(served.stub, source([1])))
    assert told == ("BACKEND_FAILED", "inference failed; nothing was applied")
    assert rows_in_use(served) == (0, 0)


async def test_an_open_whose_caller_leaves_while_the_source_is_read_is_finished(served) -> None:
    engine, held = served.server.engine, []
    dispatch = engine._dispatch
    engine._dispatch = lambda job, done: held.append((job, done))
    opening = asyncio.ensure_future(open_session(served.stub, source([1, 2])))
    while not held:
        await asyncio.sleep(0.01)
    assert rows_in_use(served) == (1, 1)
    opening.cancel()
    await asyncio.sleep(0.05)
    engine._dispatch = dispatch
    dispatch(*held[0])
    while not len(engine.table):
        await asyncio.sleep(0.01)
    assert rows_in_use(served) == (1, 1)


async def test_an_id_that_is_taken_while_the_source_is_read_leaves_no_row(served) -> None:
    engine, held = served.server.engine, []
    dispatch = engine._dispatch
    engine._dispatch = lambda job, done: held.append((job, done))
    opening = asyncio.ensure_future(refusal(open_session(served.stub, source([1, 2]), session="mine")))
    while not held:
        await asyncio.sleep(0.01)
    await open_session(served.stub, model="tiny", session="mine")
    engine._dispatch = dispatch
    dispatch(*held[0])
    assert (await opening)[0] == "SESSION_EXISTS"
    assert rows_in_use(served) == (0, 0)


# ---- Files ----


async def loading(folder: Path, **settings: Any) -> None:
    async with serving(folder, **settings):
        pass


async def test_files_that_do_not_belong_together_are_not_loaded(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "reads", tmp_path / "reads")
    beside = tmp_path / "reads" / "1" / "priming.onnx"
    shutil.copy(models / "plain" / "1" / "priming.onnx", beside)
    with pytest.raises(
        ModelError, match=r"priming.onnx: expected the graph that begins sessions of model.onnx"
    ):
        await loading(tmp_path)
    shutil.copy(models / "plain" / "1" / "model.onnx", beside)
    with pytest.raises(ModelError, match=r"priming.onnx: expected a graph of kind priming, got step"):
        await loading(tmp_path)
    beside.unlink()
    with pytest.raises(
        ModelError, match=r"model.onnx: expected priming.onnx beside it, which writes its read-only"
    ):
        await loading(tmp_path)
    shutil.copy(models / "reads" / "1" / "priming.onnx", tmp_path / "reads" / "1" / "model.onnx")
    with pytest.raises(ModelError, match="expected a graph of kind step or whole, got priming"):
        await loading(tmp_path)


async def test_no_room_for_what_sessions_read_is_told_when_the_model_is_loaded(
    models: Path, monkeypatch
) -> None:
    def full(planes: Any, sessions: int) -> Memory:
        raise MemoryError("Unable to allocate")

    monkeypatch.setattr(forms, "Memory", full)
    words = "and 100000 of 84 that are only read .--max-sessions says how many.: Unable to allocate"
    with pytest.raises(ModelError, match=words):
        await loading(models)
