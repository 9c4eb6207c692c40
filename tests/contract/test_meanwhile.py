"""Calls that wait for rows while an id or a name becomes another model's: they are refused, and harm neither."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import onnx
import pytest

from carousel.wire import carousel_pb2 as pb
from export.options import PLAIN
from export.tasks import step_model
from tests.loops import floats, growth
from tests.models import tiny_checkpoint
from tests.ports_model import save, serving
from tests.wire import tokens

PUSH = [floats("level", [1, 1]), floats("push", [1])]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[SimpleNamespace]:
    """A session `mine` of a model of numbers, a model of tokens beside it, and what keeps calls waiting."""
    save(growth(), tmp_path, "growth")
    save(step_model(tiny_checkpoint(hidden=8), PLAIN), tmp_path, "tiny")
    async with serving(tmp_path, max_batch=8) as (server, stub):
        for session in ("mine", "aside"):
            await stub.Open(pb.OpenRequest(model="growth", session=session))
        await stub.Step(pb.StepRequest(session="mine", inputs=PUSH))
        yield SimpleNamespace(server=server, stub=stub, models=tmp_path)


async def refused_after(served: Any, call: Callable[[], Any], meanwhile: Any, *, begun: bool) -> str:
    """What a call is told if something else happens while it is under way, or before its turn has come."""
    engine, held = served.server.engine, list[Any]()
    dispatch = engine._dispatch
    engine._dispatch = lambda job, done: held.append((job, done))
    calls = [] if begun else [served.stub.Snapshot(pb.SnapshotRequest(session="aside"))]
    waiting = asyncio.gather(*calls, call(), return_exceptions=True)
    while not held or engine.waiting_errands < len(calls):
        await asyncio.sleep(0.001)
    await meanwhile()
    engine._dispatch = dispatch
    dispatch(*held[0])
    error = (await waiting)[-1]
    assert isinstance(error, grpc.aio.AioRpcError)
    return dict(error.trailing_metadata() or ())["carousel-reason"]


async def give_the_id_to_another_model(served: Any) -> None:
    await served.stub.Close(pb.CloseRequest(session="mine"))
    await served.stub.Open(pb.OpenRequest(model="tiny", session="mine"))


async def rows_in_use(served: Any) -> dict[str, int]:
    """After whoever has the id now has made a step: it must have a row of its own."""
    await served.stub.Step(pb.StepRequest(session="mine", inputs=tokens(1)))
    return {model.key: model.rows.used for model in served.server.engine.models}


@pytest.mark.parametrize("begun", [True, False])
async def test_no_copy_is_made_of_one_model_with_the_state_of_another(served, begun: bool) -> None:
    way = pb.Scenario(inputs=PUSH)
    calls = [lambda: served.stub.Forecast(pb.ForecastRequest(session="mine", steps=1, scenarios=[way]))]
    if begun:
        calls.append(lambda: served.stub.Fork(pb.ForkRequest(session="mine", count=2)))
    for call in calls:
        other = lambda: give_the_id_to_another_model(served)  # noqa: E731
        assert await refused_after(served, call, other, begun=begun) == "SESSION_CLOSED"
        assert await rows_in_use(served) == {"growth/1": 0, "tiny/1": 1}
        await served.stub.Close(pb.CloseRequest(session="mine"))
        await served.stub.Open(pb.OpenRequest(model="growth", session="mine"))
        await served.stub.Step(pb.StepRequest(session="mine", inputs=PUSH))


async def test_no_session_begins_with_a_snapshot_of_a_model_that_was_replaced_meanwhile(served) -> None:
    made = await served.stub.Open(pb.OpenRequest(model="tiny"))
    await served.stub.Step(pb.StepRequest(session=made.session, inputs=tokens(1)))
    taken = await served.stub.Snapshot(pb.SnapshotRequest(session=made.session))

    async def replace() -> None:
        folder = served.models / "tiny" / "2"
        folder.mkdir()
        # Rows as long as those before, of another training.
        onnx.save(step_model(tiny_checkpoint(hidden=8, lineage="0ld5" * 8), PLAIN), folder / "model.onnx")
        await served.stub.LoadModel(pb.LoadModelRequest(name="tiny"))

    request = pb.OpenRequest(model="tiny", snapshot=taken.snapshot, session="late")
    assert (
        await refused_after(served, lambda: served.stub.Open(request), replace, begun=False)
        == "MODEL_DIFFERS"
    )
    assert len(served.server.engine.table) == 3
