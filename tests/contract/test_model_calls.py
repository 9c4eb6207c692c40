"""Models that come and go while the service runs."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import onnx
import pytest

from carousel.wire import carousel_pb2 as pb
from service.identity import Identity, caller
from service.model_calls import ModelCalls
from tests.models import tiny_characters
from tests.ports_model import odd, serving
from tests.wire import V, answers, attach, open_session, steps, tokens

VERSIONS = ("1", "2")
"""Equal signatures, other weights."""
CHUNKS = 40
LONG = 24
"""Steps of a chunk that needs several runs."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 to 3 of a model; the third is another training, and its sessions' rows mean something else."""
    folder = tmp_path_factory.mktemp("exported")
    for version, lineage in enumerate(("5eed" * 8, "5eed" * 8, "0ld5" * 8), start=1):
        tiny_characters(folder, hidden=8, seed=version, version=version, lineage=lineage)
    return folder


@pytest.fixture
def models(exported: Path, tmp_path: Path) -> Path:
    """A repository with version 1."""
    copy_version(exported, tmp_path / "models", "1")
    return tmp_path / "models"


@pytest.fixture
async def served(models: Path) -> AsyncIterator[SimpleNamespace]:
    async with serving(models, max_batch=8, run_steps=4) as (server, stub):
        yield SimpleNamespace(server=server, stub=stub, models=models)


def copy_version(exported: Path, models: Path, version: str) -> None:
    shutil.copytree(exported / "tiny" / version, models / "tiny" / version)


async def load(stub, version: str = "") -> pb.LoadModelResponse:
    return await stub.LoadModel(pb.LoadModelRequest(name="tiny", version=version))


async def listed(stub) -> dict[str, pb.Model]:
    models = (await stub.ListModels(pb.ListModelsRequest())).models
    assert len({model.version for model in models}) == len(models)
    return {model.version: model for model in models}


async def step(stub, session: str, first: int, *values: int) -> tuple[str, np.ndarray]:
    """Version and logits."""
    request = pb.StepRequest(
        session=session, first_index=first, length=len(values), acknowledged=first, inputs=tokens(*values)
    )
    answer = await stub.Step(request)
    return answer.version, np.frombuffer(answer.outputs[0].data, "<f4").reshape(-1, V)


async def pinned(stub, version: str) -> str:
    return await open_session(stub, version=version)


def metric(server, name: str, **labels: str) -> float | None:
    return server.metrics.registry.get_sample_value(name, labels)


async def until(holds) -> None:
    for _ in range(200):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came")


class Follower:
    """One session on a stream of its own, and what each version answers to it, chunk by chunk."""

    def __init__(self, stub, seed: int) -> None:
        self.stub = stub
        rng = np.random.default_rng(seed)
        lengths = rng.choice([1, 2, LONG], CHUNKS)
        self.chunks = [rng.integers(0, V, length).tolist() for length in lengths]
        self.firsts = (np.cumsum(lengths) - lengths).tolist()
        self.got: list[tuple[str, np.ndarray]] = []

    async def run(self) -> None:
        call = self.stub.Stream()
        await call.write(attach(await open_session(self.stub)))
        await call.read()
        for chunk, first in zip(self.chunks, self.firsts, strict=True):
            await call.write(steps([0], [first], [chunk], [first]))
            response = await call.read()
            self.got.append((response.answers.version, answers([response])[0, first]))
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF

    async def check(self, twin) -> int:
        """Hold every answer against one session that is stepped alone; returns the chunk at which it changed."""
        versions = [version for version, _ in self.got]
        change = versions.index("2")
        assert versions == ["1"] * change + ["2"] * (CHUNKS - change)
        session = await open_session(twin)
        for k, (version, logits) in enumerate(self.got):
            if k == change:
                await load(twin, "2")
            told, expected = await step(twin, session, self.firsts[k], *self.chunks[k])
            assert told == version
            np.testing.assert_array_equal(logits, expected)
        await load(twin, "1")
        return change


async def test_every_answer_of_a_live_stream_is_of_the_old_version_or_of_the_new_and_it_changes_once(
    served, exported: Path
) -> None:
    copy_version(exported, served.models, "2")
    followers = [Follower(served.stub, seed) for seed in range(6)]
    running = [asyncio.create_task(follower.run()) for follower in followers]
    await until(lambda: all(len(follower.got) > 5 for follower in followers))
    response = await load(served.stub)
    assert response.took_over
    assert (response.model.version, response.model.state) == ("2", pb.Model.SERVING)
    await asyncio.gather(*running)
    async with serving(served.models, max_batch=8, run_steps=64) as (_, twin):
        await load(twin, "1")
        changes = [await follower.check(twin) for follower in followers]
    assert all(5 < change < CHUNKS for change in changes)
    assert metric(served.server, "carousel_chunks_total", model="tiny/1") == sum(changes)


async def test_a_session_that_asked_for_its_version_is_described_as_pinned_and_stays(
    served, exported: Path
) -> None:
    stays, moves = await pinned(served.stub, "1"), await open_session(served.stub)
    (_, first), _ = [await step(served.stub, session, 0, 1, 2) for session in (stays, moves)]
    copy_version(exported, served.models, "2")
    assert (await load(served.stub, "2")).took_over
    described = [await served.stub.Describe(pb.DescribeRequest(session=one)) for one in (stays, moves)]
    assert [(one.version, one.pinned) for one in described] == [("1", True), ("2", False)]
    assert {v: (m.state, m.sessions) for v, m in (await listed(served.stub)).items()} == {
        "2": (pb.Model.SERVING, 1),
        "1": (pb.Model.RETIRING, 1),
    }
    (old, stayed), (new, moved) = [await step(served.stub, one, 2, 3) for one in (stays, moves)]
    assert (old, new) == ("1", "2")
    assert not np.isclose(stayed, moved).all()
    whole = await pinned(served.stub, "2")
    with pytest.raises(grpc.aio.AioRpcError, match="'tiny/1' is not served; served are: tiny/2") as caught:
        await pinned(served.stub, "1")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert (await step(served.stub, whole, 0, 1, 2))[0] == "2"
    assert not np.isclose(first, (await step(served.stub, await open_session(served.stub), 0, 1, 2))[1]).all()


async def test_the_version_before_is_unloaded_once_nobody_needs_it(served, exported: Path) -> None:
    stays, moves = await pinned(served.stub, "1"), await open_session(served.stub)
    await step(served.stub, stays, 0, 1)
    copy_version(exported, served.models, "2")
    await load(served.stub)
    await asyncio.sleep(1.2)
    assert set(await listed(served.stub)) == {"1", "2"}
    await served.stub.Close(pb.CloseRequest(session=stays))
    await until(lambda: metric(served.server, "carousel_models", state="retiring") == 0)
    assert set(await listed(served.stub)) == {"2"}
    assert not hasattr(served.server.engine.served[0].backend, "_session")
    assert (await step(served.stub, moves, 0, 1))[0] == "2"


async def test_another_signature_takes_new_sessions_and_the_old_line_ends_with_its_last_session(
    served, exported: Path
) -> None:
    old = await open_session(served.stub)
    await step(served.stub, old, 0, 1, 2)
    copy_version(exported, served.models, "3")
    assert not (await load(served.stub)).took_over
    new = await open_session(served.stub)
    assert [(await step(served.stub, one, first, 3))[0] for one, first in ((old, 2), (new, 0))] == ["1", "3"]
    engine = served.server.engine
    assert engine.served[0].rows is not engine.served[1].rows
    assert metric(served.server, "carousel_rows") == 2
    await served.stub.Close(pb.CloseRequest(session=old))
    await until(lambda: [model.version for model in engine.models] == ["3"])
    await until(lambda: metric(served.server, "carousel_rows") == 1)
    await until(lambda: not hasattr(engine.served[0].backend, "_store"))
    assert (await step(served.stub, new, 1, 4))[0] == "3"
    copy_version(exported, served.models, "2")
    assert not (await load(served.stub, "2")).took_over, "nobody has rows of its signature any more"
    again = await open_session(served.stub)
    assert (await step(served.stub, again, 0, 1, 2))[0] == "2"


async def test_going_back_to_an_older_version_is_loading_it(served, exported: Path) -> None:
    copy_version(exported, served.models, "2")
    session = await open_session(served.stub)
    await load(served.stub)
    assert (await step(served.stub, session, 0, 1))[0] == "2"
    assert (await load(served.stub, "1")).took_over
    assert (await step(served.stub, session, 1, 1))[0] == "1"
    assert len(served.server.engine.served) == 2, "it was still there"


async def test_loading_what_is_served_changes_nothing(served) -> None:
    await open_session(served.stub)
    for version in ("", "1"):
        response = await load(served.stub, version)
        assert not response.took_over
        assert (response.model.version, response.model.sessions) == ("1", 1)
    assert len(served.server.engine.served) == 1


async def test_a_version_whose_file_was_replaced_is_loaded_anew(served, exported: Path) -> None:
    copy_version(exported, served.models, "2")
    await load(served.stub, "1")
    one, other = [await open_session(served.stub) for _ in range(2)]
    for session in (one, other):
        await step(served.stub, session, 0, 1)
    shutil.copy(exported / "tiny" / "2" / "model.onnx", served.models / "tiny" / "1" / "model.onnx")
    assert (await load(served.stub, "1")).took_over
    version, replaced = await step(served.stub, one, 1, 2)
    assert version == "1"
    await load(served.stub, "2")
    version, second = await step(served.stub, other, 1, 2)
    assert version == "2"
    np.testing.assert_array_equal(replaced, second)


async def test_a_version_that_cannot_be_loaded_leaves_the_old_one_and_says_why_everywhere(
    served, exported: Path
) -> None:
    session = await open_session(served.stub)
    failures = "carousel_model_load_failures_total"
    assert metric(served.server, failures, model="tiny") == 0
    broken = served.models / "tiny" / "2" / "model.onnx"
    broken.parent.mkdir()
    broken.write_bytes(b"no model")
    with pytest.raises(
        grpc.aio.AioRpcError, match=r"\"tiny/2/model.onnx: onnxruntime cannot load it"
    ) as caught:
        await load(served.stub)
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert ("carousel-reason", "MODEL_FAILED") in tuple(caught.value.trailing_metadata())
    models = await listed(served.stub)
    assert (models["1"].state, models["2"].state) == (pb.Model.SERVING, pb.Model.FAILED)
    assert models["2"].error.startswith("tiny/2/model.onnx: onnxruntime cannot load it")
    assert str(served.models) not in models["2"].error
    assert (models["2"].contract, models["1"].error) == ("", "")
    assert metric(served.server, failures, model="tiny") == 1
    assert metric(served.server, "carousel_models", state="failed") == 1
    assert (await step(served.stub, session, 0, 1))[0] == "1"
    shutil.rmtree(broken.parent)
    copy_version(exported, served.models, "2")
    assert (await load(served.stub)).took_over
    assert (await listed(served.stub))["2"].state == pb.Model.SERVING
    assert metric(served.server, "carousel_models", state="failed") == 0


async def test_a_failure_is_forgotten_when_its_version_is_unloaded(served) -> None:
    broken = served.models / "tiny" / "2" / "model.onnx"
    broken.parent.mkdir()
    broken.write_bytes(b"no model")
    with pytest.raises(grpc.aio.AioRpcError):
        await load(served.stub)
    await served.stub.UnloadModel(pb.UnloadModelRequest(name="tiny", version="2"))
    assert set(await listed(served.stub)) == {"1"}


async def test_an_unloaded_version_takes_no_new_sessions_and_goes_with_its_last(served) -> None:
    session = await open_session(served.stub)
    unload = pb.UnloadModelRequest(name="tiny", version="1")
    assert (await served.stub.UnloadModel(unload)).sessions == 1
    assert (await listed(served.stub))["1"].state == pb.Model.RETIRING
    with pytest.raises(grpc.aio.AioRpcError, match="'tiny' is not served; served are: none"):
        await open_session(served.stub)
    assert (await step(served.stub, session, 0, 1))[0] == "1"
    assert (await load(served.stub)).model.state == pb.Model.SERVING
    await served.stub.UnloadModel(unload)
    await served.stub.Close(pb.CloseRequest(session=session))
    await until(lambda: not list(served.server.engine.models))
    with pytest.raises(grpc.aio.AioRpcError, match="'tiny/1' is not loaded; loaded are: none"):
        await served.stub.UnloadModel(unload)
    assert (await load(served.stub)).model.version == "1"
    assert (await step(served.stub, await open_session(served.stub), 0, 1))[0] == "1"


@pytest.mark.parametrize(
    ("name", "version", "there"),
    [
        ("tiny", "7", "1"),
        ("other", "", "none"),
        ("../models/tiny", "", "none"),
        ("tiny", "../1", "1"),
        ("", "", "none"),
    ],
)
async def test_what_is_not_in_the_repository_is_not_found(
    served, name: str, version: str, there: str
) -> None:
    with pytest.raises(
        grpc.aio.AioRpcError, match=f'not in the repository; its versions are: {there}"'
    ) as caught:
        await served.stub.LoadModel(pb.LoadModelRequest(name=name, version=version))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_only_administrators_load_and_unload(served) -> None:
    api = served.server._api
    assert isinstance(api, ModelCalls)
    token = caller.set(Identity("somebody", admin=False))
    try:
        for call, request in (
            (api.LoadModel, pb.LoadModelRequest(name="tiny")),
            (api.UnloadModel, pb.UnloadModelRequest(name="tiny", version="1")),
        ):
            with pytest.raises(Exception, match="only administrators"):
                await call(request, None)
    finally:
        caller.reset(token)
    assert (await listed(served.stub))["1"].state == pb.Model.SERVING


async def test_loads_at_the_same_time_come_one_after_the_other(served, exported: Path) -> None:
    copy_version(exported, served.models, "2")
    session = await open_session(served.stub)
    responses = await asyncio.gather(*(load(served.stub, version) for version in "2121222"))
    assert [response.model.version for response in responses] == list("2121222")
    assert [response.took_over for response in responses] == [True] * 5 + [False] * 2
    assert (await step(served.stub, session, 0, 1))[0] == "2"
    assert len(served.server.engine.served) <= 5


async def test_steps_go_on_while_a_version_is_loaded(served, exported: Path, monkeypatch) -> None:
    copy_version(exported, served.models, "2")
    session = await open_session(served.stub)
    begun, go_on = asyncio.Event(), asyncio.Event()
    loop, loader = asyncio.get_running_loop(), served.server._api.loader
    make = loader._make

    def slow(file, number):
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(timeout=30)
        return make(file, number)

    monkeypatch.setattr(loader, "_make", slow)
    loading = asyncio.create_task(load(served.stub))
    await begun.wait()
    assert [(await step(served.stub, session, first, 1))[0] for first in range(5)] == ["1"] * 5
    loading.cancel()
    go_on.set()
    await until(lambda: served.server.engine.models.find("tiny").version == "2")
    assert (await step(served.stub, session, 5, 1))[0] == "2"


async def test_a_session_that_has_made_no_step_begins_as_the_version_that_steps_it_does(
    tmp_path: Path,
) -> None:
    for version, initial in (("1", 1.0), ("2", 5.0)):
        graph = odd(lambda draft: draft.node("Add", ["x", "state"], ["y"]), initial=(initial,))
        (tmp_path / "odd" / version).mkdir(parents=True)
        onnx.save(graph, tmp_path / "odd" / version / "model.onnx")

    async def answer(stub, session: str, first: int) -> float:
        x = [pb.Tensor(name="x", data=np.float32(0.25).tobytes())]
        response = await stub.Step(pb.StepRequest(session=session, first_index=first, inputs=x))
        return float(np.frombuffer(response.outputs[0].data, "<f4")[0])

    async with serving(tmp_path) as (_, stub):
        await stub.LoadModel(pb.LoadModelRequest(name="odd", version="1"))
        begun, fresh = [(await stub.Open(pb.OpenRequest(model="odd"))).session for _ in range(2)]
        stays = (await stub.Open(pb.OpenRequest(model="odd", version="1"))).session
        assert await answer(stub, begun, 0) == 1.25
        assert (await stub.LoadModel(pb.LoadModelRequest(name="odd", version="2"))).took_over
        assert await answer(stub, begun, 1) == 1.25, "it has a state already"
        assert await answer(stub, fresh, 0) == 5.25
        assert await answer(stub, stays, 0) == 1.25


# -- polling ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def polled(models: Path) -> AsyncIterator[SimpleNamespace]:
    """A server that looks into its repository when the test says so: the next look by itself is an hour away."""
    async with serving(models, max_batch=4, poll_models_s=3600) as (server, stub):
        loader = server._api.loader
        await loader.look()
        yield SimpleNamespace(server=server, stub=stub, models=models, look=loader.look)


async def version_of(polled) -> str:
    return polled.server.engine.models.find("tiny").version


async def test_a_new_version_is_loaded_once_it_has_not_changed_over_two_looks(polled, exported: Path) -> None:
    session = await open_session(polled.stub)
    folder = polled.models / "tiny" / "2"
    folder.mkdir()
    whole = (exported / "tiny" / "2" / "model.onnx").read_bytes()
    for part in (whole[:1000], whole[:2000], whole):
        (folder / "model.onnx").write_bytes(part)
        await polled.look()
        assert await version_of(polled) == "1"
    await polled.look()
    assert await version_of(polled) == "2"
    assert (await step(polled.stub, session, 0, 1))[0] == "2"
    assert metric(polled.server, "carousel_model_load_failures_total", model="tiny") == 0


async def test_a_version_that_failed_is_tried_again_only_when_it_has_changed(polled, exported: Path) -> None:
    failures = "carousel_model_load_failures_total"
    file = polled.models / "tiny" / "2" / "model.onnx"
    file.parent.mkdir()
    file.write_bytes(b"no model")
    for _ in range(4):
        await polled.look()
    assert metric(polled.server, failures, model="tiny") == 1
    assert (await listed(polled.stub))["2"].state == pb.Model.FAILED
    shutil.copy(exported / "tiny" / "2" / "model.onnx", file)
    for _ in range(2):
        await polled.look()
    assert await version_of(polled) == "2"
    assert metric(polled.server, failures, model="tiny") == 1


async def test_looking_does_not_undo_what_an_administrator_did(polled, exported: Path) -> None:
    copy_version(exported, polled.models, "2")
    for _ in range(2):
        await polled.look()
    await load(polled.stub, "1")
    for _ in range(3):
        await polled.look()
    assert await version_of(polled) == "1"
    copy_version(exported, polled.models, "3")
    for _ in range(2):
        await polled.look()
    assert await version_of(polled) == "3"
    shutil.rmtree(polled.models / "tiny" / "3")
    for _ in range(3):
        await polled.look()
    assert await version_of(polled) == "3", "what is served needs no file"


async def test_a_model_that_was_not_there_at_the_start_is_served_when_it_comes(
    polled, exported: Path
) -> None:
    shutil.copytree(exported / "tiny", polled.models / "other")
    for _ in range(2):
        await polled.look()
    opened = await polled.stub.Open(pb.OpenRequest(model="other"))
    assert opened.version == "3"
    assert (await step(polled.stub, opened.session, 0, 1))[0] == "3"


async def test_a_repository_that_cannot_be_read_is_looked_at_again(polled, exported: Path) -> None:
    away = polled.models.rename(polled.models.with_name("away"))
    await polled.look()
    assert await version_of(polled) == "1"
    away.rename(polled.models)
    copy_version(exported, polled.models, "2")
    for _ in range(2):
        await polled.look()
    assert await version_of(polled) == "2"


async def test_the_service_looks_by_itself(models: Path, exported: Path) -> None:
    async with serving(models, poll_models_s=0.02) as (server, _):
        copy_version(exported, models, "2")
        await until(lambda: server.engine.models.find("tiny").version == "2")


# -- restarts -----------------------------------------------------------------------------------------------------


async def test_sessions_come_back_from_a_restart_with_the_versions_they_had(
    models: Path, exported: Path, tmp_path: Path
) -> None:
    copy_version(exported, models, "2")
    state = tmp_path / "state"
    async with serving(models, state_dir=state) as (_, stub):
        await load(stub, "1")
        stays, moves = await pinned(stub, "1"), await open_session(stub)
        kept = [await step(stub, one, 0, 1, 2) for one in (stays, moves)]
        await load(stub, "2")
    async with serving(models, state_dir=state) as (server, stub):
        assert {v: (m.state, m.sessions) for v, m in (await listed(stub)).items()} == {
            "2": (pb.Model.SERVING, 1),
            "1": (pb.Model.RETIRING, 1),
        }
        for one, (version, logits) in zip((stays, moves), kept, strict=True):
            told, again = await step(stub, one, 0, 1, 2)
            assert told == version == "1"
            np.testing.assert_array_equal(again, logits)
        (old, stayed), (new, moved) = [await step(stub, one, 2, 3) for one in (stays, moves)]
        assert (old, new) == ("1", "2")
        assert not np.isclose(stayed, moved).all()
        assert server.engine.served[0].rows is server.engine.served[1].rows
        assert server.engine.served[0].rows.used == 2


async def test_a_line_that_was_retiring_comes_back_retiring(
    models: Path, exported: Path, tmp_path: Path
) -> None:
    copy_version(exported, models, "3")
    state = tmp_path / "state"
    async with serving(models, state_dir=state) as (_, stub):
        await load(stub, "1")
        old = await open_session(stub)
        await step(stub, old, 0, 1)
        await load(stub, "3")
    async with serving(models, state_dir=state) as (server, stub):
        assert (await listed(stub))["1"].state == pb.Model.RETIRING
        assert (await step(stub, old, 1, 2))[0] == "1"
        await stub.Close(pb.CloseRequest(session=old))
        await until(lambda: len(list(server.engine.models)) == 1)


async def test_a_version_that_left_the_repository_gives_its_sessions_to_the_one_with_its_rows(
    models: Path, exported: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    async with serving(models, state_dir=state) as (_, stub):
        session = await pinned(stub, "1")
        await step(stub, session, 0, 1)
    shutil.rmtree(models / "tiny" / "1")
    copy_version(exported, models, "2")
    async with serving(models, state_dir=state) as (_, stub):
        described = await stub.Describe(pb.DescribeRequest(session=session))
        assert (described.version, described.pinned, described.next_index) == ("2", False, 1)
        assert (await step(stub, session, 1, 2))[0] == "2"
