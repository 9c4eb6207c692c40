"""The service over models of the arena form: all that it promises over those of the rows form.

On the CPU provider, where the answers are those of the rows form bit for bit, and on CUDA where a GPU is.
"""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
import torch

from carousel.client import AsyncClient
from carousel.wire import carousel_pb2 as pb
from cli.main import main
from export import parity
from export.characters import characters_model
from export.options import Options
from service.arena_backend import ArenaBackend
from service.arena_bucket import Bucket
from service.opening import open_model
from service.placement import PlacementError, check_form, check_nodes, operators_of
from service.repository import ModelError
from service.runtime import CudaOptions, Provider, cuda_settings
from service.settings import Settings, SettingsError
from tests.gpu import CUDA, PROVIDERS, SPOILS, counted
from tests.models import SYMBOLS, tiny_characters, tiny_checkpoint
from tests.one_step_model import WEIGHTS, write_one_step
from tests.ports_model import serving
from tests.wire import V, open_session, tokens

TOLERANCE = 1e-5
"""As in tests/parity/test_through_grpc.py."""
RECORDED = {"provider": "cuda", "cuda_graphs": True}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 and 2 of a model in the arena form; with the weights of the first, 3 in the rows form, 4 of one step."""
    folder = tmp_path_factory.mktemp("exported")
    for version, seed, target in ((1, 0, "cuda"), (2, 1, "cuda"), (3, 0, "cpu")):
        tiny_characters(folder, hidden=16, layers=2, seed=seed, version=version, target=target)
    export_one_step(folder, version=4)
    return folder


def export_one_step(folder: Path, version: int, seed: int = 0) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "CARRIED_STEPS", 100)
        settings = {"hidden": 16, "layers": 2, "target": "cuda", "single_step": True}
        tiny_characters(folder, seed=seed, version=version, **settings)


@pytest.fixture(scope="module")
def trained_on(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 5 of the same model: of one step, with other weights."""
    folder = tmp_path_factory.mktemp("trained_on")
    export_one_step(folder, version=5, seed=1)
    return folder


@pytest.fixture
def models(exported: Path, tmp_path: Path) -> Path:
    """A repository with version 1."""
    copy_version(exported, tmp_path / "models", "1")
    return tmp_path / "models"


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> Provider:
    return request.param


@pytest.fixture
async def served(models: Path, provider: Provider) -> AsyncIterator[SimpleNamespace]:
    async with serving(models, max_batch=6, run_steps=4, provider=provider) as (server, stub):
        yield SimpleNamespace(server=server, stub=stub, models=models)


def copy_version(exported: Path, models: Path, version: str) -> None:
    shutil.copytree(exported / "tiny" / version, models / "tiny" / version)


def client_of(server: Any) -> AsyncClient:
    return AsyncClient(f"127.0.0.1:{server.grpc_port}")


async def step(stub: Any, session: str, first: int, *values: int) -> np.ndarray:
    request = pb.StepRequest(session=session, first_index=first, length=len(values), inputs=tokens(*values))
    answer = await stub.Step(request)
    return np.frombuffer(answer.outputs[0].data, "<f4").reshape(-1, V)


def same(given: np.ndarray, expected: np.ndarray, provider: Provider) -> None:
    """CUDA sums in another order than the CPU."""
    if provider == "cpu":
        assert given.tobytes() == expected.tobytes()
    np.testing.assert_allclose(given, expected, rtol=TOLERANCE, atol=TOLERANCE)


def random_tokens(seed: int, length: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, len(SYMBOLS), length)


@pytest.mark.parametrize("cuts", [[], [7, 20], list(range(1, 40))])
async def test_a_session_answers_what_torch_computes_however_it_is_cut(served, cuts: list[int]) -> None:
    model, sent = tiny_checkpoint(hidden=16, layers=2).model, random_tokens(0, 40)
    with torch.no_grad():
        expected, _ = model(torch.from_numpy(sent)[None], model.stack.initial_state(1))
    async with client_of(served.server) as client:
        session = await client.open("tiny")
        answers = [(await session.step(chunk))["logits"] for chunk in np.split(sent, cuts)]
    np.testing.assert_allclose(np.concatenate(answers), expected[0].numpy(), rtol=TOLERANCE, atol=TOLERANCE)


async def test_a_model_in_float16_is_served_on_the_cpu_too(tmp_path: Path) -> None:
    """At its last level of optimisation ONNX Runtime 1.32 ends the process when it loads one there."""
    checkpoint, sent = tiny_checkpoint(hidden=16), random_tokens(2, 12)
    file = tmp_path / "tiny" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    half = characters_model(checkpoint, Options(target="cuda", precision="fp16"))
    file.write_bytes(half.SerializeToString())
    with torch.no_grad():
        expected, _ = checkpoint.model(torch.from_numpy(sent)[None], checkpoint.model.stack.initial_state(1))
    async with serving(tmp_path) as (server, _), client_of(server) as client:
        session = await client.open("tiny")
        logits = (await session.step(sent))["logits"]
    np.testing.assert_allclose(logits, expected[0].numpy(), atol=5e-3)


async def drive(server: Any, version: str, seed: int) -> list[np.ndarray]:
    """Forty sessions with chunks of mixed length, some at once."""
    rng = np.random.default_rng(seed)
    async with client_of(server) as client:
        sessions = [await client.open("tiny", version=version) for _ in range(40)]
        logits = []
        for _ in range(25):
            some = rng.choice(len(sessions), rng.integers(1, 12), replace=False)
            chunks = [rng.integers(0, len(SYMBOLS), rng.integers(1, 9)) for _ in some]
            sent = (sessions[k].step(chunk) for k, chunk in zip(some, chunks, strict=True))
            logits += [answer["logits"] for answer in await asyncio.gather(*sent)]
    return logits


async def test_answers_are_those_of_the_rows_form_with_and_without_rows_on_the_disk(
    exported: Path, tmp_path: Path, provider: Provider
) -> None:
    answered = {}
    for name, version, settings in (
        ("rows", "3", {}),
        ("arena", "1", {}),
        ("spilling", "1", {"resident_sessions": 4, "state_dir": tmp_path / "state"}),
    ):
        copy_version(exported, tmp_path / name, version)
        where = "cpu" if name == "rows" else provider
        async with serving(tmp_path / name, max_batch=6, run_steps=4, provider=where, **settings) as (
            server,
            _,
        ):
            answered[name] = await drive(server, version, 3)
            is_arena = isinstance(server.engine.served[0].backend, ArenaBackend)
            assert is_arena == (name != "rows")
            spilled = server.metrics.registry.get_sample_value("carousel_sessions_spilled") or 0
            assert (spilled > 20) == (name == "spilling")
    for name in ("arena", "spilling"):
        for mine, expected in zip(answered[name], answered["rows"], strict=True):
            same(mine, expected, provider)


async def test_chunks_of_several_steps_are_as_many_runs_of_a_graph_of_one_step(
    exported: Path, tmp_path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: set[tuple[int, ...]] = set()
    run = Bucket.run

    def noted(bucket: Bucket, *given: Any) -> Any:
        shapes.add(given[0].inputs[0].shape[1:])
        return run(bucket, *given)

    monkeypatch.setattr(Bucket, "run", noted)
    answered = []
    for version, where in (("4", provider), ("3", "cpu")):
        copy_version(exported, tmp_path / version, version)
        async with serving(tmp_path / version, max_batch=6, run_steps=4, provider=where) as (server, _):
            answered.append(await drive(server, version, 5))
    assert shapes == {(1,)}
    assert max(len(logits) for logits in answered[0]) == 8
    for mine, expected in zip(*answered, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=TOLERANCE, atol=TOLERANCE)


async def test_a_step_sent_again_is_answered_again_and_counts_once(served) -> None:
    first, again = await open_session(served.stub), await open_session(served.stub)
    for token in (3, 4):
        await step(served.stub, again, token - 3, token)
    one = await step(served.stub, first, 0, 3)
    assert (await step(served.stub, first, 0, 3)).tobytes() == one.tobytes()
    await step(served.stub, first, 1, 4)
    after, expected = await step(served.stub, first, 2, 5), await step(served.stub, again, 2, 5)
    assert after.tobytes() == expected.tobytes()


async def test_a_run_that_fails_after_it_has_written_changes_no_session(served, monkeypatch) -> None:
    session, twin = await open_session(served.stub), await open_session(served.stub)
    for one in (session, twin):
        await step(served.stub, one, 0, 3, 4, 5)
    run = Bucket.run

    def failing(bucket: Bucket, *given: Any) -> Any:
        run(bucket, *given)
        raise RuntimeError("on purpose")

    monkeypatch.setattr(Bucket, "run", failing)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await step(served.stub, session, 3, 9, 9, 9, 9, 9)
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    monkeypatch.undo()
    answer, expected = [await step(served.stub, one, 3, 6, 7) for one in (session, twin)]
    assert answer.tobytes() == expected.tobytes()


async def test_forks_snapshots_and_a_restart_take_the_states_along(
    models: Path, tmp_path: Path, provider: Provider
) -> None:
    state = {"state_dir": tmp_path / "state", "max_batch": 4, "provider": provider}
    async with serving(models, **state) as (_, stub):
        session = await open_session(stub)
        await step(stub, session, 0, *range(3, 12))
        (fork,) = (await stub.Fork(pb.ForkRequest(session=session, count=1))).copies
        snapshot = (await stub.Snapshot(pb.SnapshotRequest(session=session))).snapshot
        await open_session(stub, session="again")
        await stub.Restore(pb.RestoreRequest(session="again", snapshot=snapshot))
    async with serving(models, **state) as (_, stub):
        answers = [await step(stub, one, 9, 2, 3) for one in (session, fork, "again")]
    assert len({answer.tobytes() for answer in answers}) == 1


async def test_a_version_with_other_weights_takes_over_where_the_states_are(
    served, exported: Path, models: Path
) -> None:
    session = await open_session(served.stub)
    await step(served.stub, session, 0, 3, 4)
    copy_version(exported, models, "2")

    loaded = await served.stub.LoadModel(pb.LoadModelRequest(name="tiny"))

    assert loaded.took_over
    first, second = (
        tiny_checkpoint(hidden=16, layers=2).model,
        tiny_checkpoint(hidden=16, layers=2, seed=1).model,
    )
    with torch.no_grad():
        _, state = first(torch.tensor([[3, 4]]), first.stack.initial_state(1))
        expected, _ = second(torch.tensor([[5]]), state)
    answer = await step(served.stub, session, 2, 5)
    np.testing.assert_allclose(answer, expected[0].numpy(), rtol=TOLERANCE, atol=TOLERANCE)
    assert len({model.rows for model in served.server.engine.models}) == 1


async def test_a_version_of_one_step_takes_over_from_one_of_many(
    served, exported: Path, models: Path
) -> None:
    session, twin = await open_session(served.stub), await open_session(served.stub)
    for one in (session, twin):
        await step(served.stub, one, 0, 3, 4, 5)
    expected = await step(served.stub, twin, 3, 6, 7)
    copy_version(exported, models, "4")

    loaded = await served.stub.LoadModel(pb.LoadModelRequest(name="tiny"))

    assert loaded.took_over
    answer = await step(served.stub, session, 3, 6, 7)
    np.testing.assert_allclose(answer, expected, rtol=TOLERANCE, atol=TOLERANCE)
    assert len({model.rows for model in served.server.engine.models}) == 1


@pytest.mark.parametrize("provider", ["cpu"], indirect=True)
async def test_a_version_of_the_other_form_has_rows_of_its_own_and_leaves_the_sessions_where_they_are(
    served, exported: Path, models: Path
) -> None:
    session = await open_session(served.stub)
    before = await step(served.stub, session, 0, 3, 4)
    copy_version(exported, models, "3")
    await served.stub.LoadModel(pb.LoadModelRequest(name="tiny"))
    newer = await open_session(served.stub)

    assert (await step(served.stub, newer, 0, 3, 4)).tobytes() == before.tobytes()
    answers = [await step(served.stub, one, 2, 5) for one in (session, newer)]
    assert answers[0].tobytes() == answers[1].tobytes()
    assert [model.contract.form for model in served.server.engine.models] == ["rows", "arena"]


@pytest.mark.parametrize("provider", [CUDA], indirect=True)
async def test_a_version_of_the_other_form_is_refused_on_cuda_and_all_is_as_it_was(
    served, exported: Path, models: Path
) -> None:
    session, twin = await open_session(served.stub), await open_session(served.stub)
    for one in (session, twin):
        await step(served.stub, one, 0, 3, 4)
    expected = await step(served.stub, twin, 2, 5)
    copy_version(exported, models, "3")
    with pytest.raises(grpc.aio.AioRpcError, match="got rows; export it with `carousel export --for cuda`"):
        await served.stub.LoadModel(pb.LoadModelRequest(name="tiny"))
    assert (await step(served.stub, session, 2, 5)).tobytes() == expected.tobytes()


def test_cuda_takes_no_model_of_the_rows_form_and_says_how_to_export_one(exported: Path) -> None:
    rows, arena = (open_model(exported / "tiny" / version / "model.onnx", "cpu", 1)[1] for version in "31")
    check_form(arena, "cuda")
    check_form(rows, "cpu")
    with pytest.raises(PlacementError, match="got rows; export it with `carousel export --for cuda`"):
        check_form(rows, "cuda")


def test_a_node_on_the_cpu_is_named_and_refused_unless_it_is_allowed(exported: Path) -> None:
    session, _ = open_model(exported / "tiny" / "1" / "model.onnx", "cpu", 1)
    operators = operators_of(session)
    assert {"Gather", "LSTM", "ScatterND"} <= set(operators)
    assert operators == sorted(set(operators))
    with pytest.raises(PlacementError, match=r"Gather, .*LSTM.*--allow-cpu-nodes"):
        check_nodes(session, CudaOptions())
    check_nodes(session, CudaOptions(allow_cpu_nodes=True))


def test_tf32_and_graphs_are_off_unless_asked_for() -> None:
    plain = cuda_settings(Settings.load({"models": "m", "provider": "cuda"}).cuda)
    assert (plain["use_tf32"], plain["enable_cuda_graph"]) == ("0", "0")
    asked = Settings.load({"models": "m", "provider": "cuda", "tf32": True, "cuda_graphs": "true"})
    assert (cuda_settings(asked.cuda)["use_tf32"], cuda_settings(asked.cuda)["enable_cuda_graph"]) == (
        "1",
        "1",
    )


@pytest.mark.parametrize("name", ["tf32", "cuda_graphs", "allow_cpu_nodes"])
def test_what_is_for_cuda_is_refused_on_the_cpu(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SettingsError, match=f"{name}: expected provider cuda, got cpu"):
        Settings.load({"models": "m", name: True})
    assert main(["serve", "--models", "m", f"--{name.replace('_', '-')}"]) == 1
    assert f"{name}: expected provider cuda, got cpu" in capsys.readouterr().err


async def test_graphs_are_recorded_by_the_thread_that_runs_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU provider records nothing: what is shown is who is asked to, and that it is before the first session."""
    asked: list[tuple[int, int, str]] = []
    capture = Bucket.capture

    def noted(bucket: Bucket, number: int) -> None:
        asked.append((bucket.batch, number, threading.current_thread().name))
        capture(bucket, number)

    monkeypatch.setattr(Bucket, "capture", noted)
    monkeypatch.setattr(Settings, "cuda", property(lambda _: CudaOptions(graphs=True)))
    write_one_step(tmp_path / "one" / "1" / "model.onnx")
    async with serving(tmp_path, max_batch=6) as (server, _):
        assert asked == [(size, number, "dispatcher") for number, size in enumerate((1, 2, 4, 8), 1)]
        async with client_of(server) as client:
            session = await client.open("one")
            y = (await session.step(np.array([0.5, -1.0], np.float32)))["y"]
    hidden = np.zeros((1, 4), np.float32)
    for x, answer in zip((0.5, -1.0), y, strict=True):
        hidden = np.tanh(x * WEIGHTS["w"] + hidden @ WEIGHTS["u"])
        np.testing.assert_allclose(answer, (hidden @ WEIGHTS["v"])[0, 0], rtol=TOLERANCE, atol=TOLERANCE)


async def test_a_model_that_cannot_be_recorded_after_all_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(bucket: Bucket, number: int) -> None:
        raise RuntimeError("CUDA failure 900: operation not permitted when stream is capturing")

    monkeypatch.setattr(Bucket, "capture", failing)
    monkeypatch.setattr(Settings, "cuda", property(lambda _: CudaOptions(graphs=True)))
    write_one_step(tmp_path / "one" / "1" / "model.onnx")
    with pytest.raises(ModelError, match=r"model.onnx: it cannot be run: CUDA failure 900"):
        async with serving(tmp_path):
            pass


@pytest.mark.parametrize("provider", [CUDA], indirect=True)
async def test_recorded_runs_answer_what_the_rows_form_answers(
    exported: Path, tmp_path: Path, provider: Provider
) -> None:
    answered = []
    for version, settings in (("3", {}), ("4", {"provider": provider}), ("4", RECORDED)):
        models = tmp_path / str(len(answered))
        copy_version(exported, models, version)
        async with serving(models, max_batch=6, run_steps=4, **settings) as (server, _):
            answered.append(await drive(server, version, 7))
    plain, unrecorded, recorded = answered
    for one, other, expected in zip(recorded, unrecorded, plain, strict=True):
        np.testing.assert_allclose(one, expected, rtol=TOLERANCE, atol=TOLERANCE)
        np.testing.assert_allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("provider", [CUDA], indirect=True)
async def test_versions_are_recorded_between_the_runs_of_others_and_take_over(
    exported: Path, trained_on: Path, tmp_path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of another name, then a version with other weights: every answer is of one version or the other."""
    asked: list[str] = []
    capture = Bucket.capture

    def noted(bucket: Bucket, number: int) -> None:
        asked.append(threading.current_thread().name)
        capture(bucket, number)

    monkeypatch.setattr(Bucket, "capture", noted)
    copy_version(exported, tmp_path, "4")
    with counted() as counts:
        async with serving(tmp_path, max_batch=6, **RECORDED) as (server, stub), client_of(server) as client:
            at_start = len(asked)
            stepping = asyncio.create_task(steps_until(client, event := asyncio.Event()))
            await asyncio.sleep(0.1)
            shutil.copytree(trained_on / "tiny" / "5", tmp_path / "other" / "1")
            await stub.LoadModel(pb.LoadModelRequest(name="other"))
            copy_version(trained_on, tmp_path, "5")
            loaded = await stub.LoadModel(pb.LoadModelRequest(name="tiny"))
            assert loaded.took_over
            await asyncio.sleep(0.1)
            event.set()
            sent, answered = await stepping
    assert at_start == 4
    assert asked == ["dispatcher"] * 12
    assert counts[SPOILS] == 0
    held = in_turn(sent, np.concatenate(answered))
    assert 0 < held < len(sent)


async def steps_until(client: AsyncClient, end: asyncio.Event) -> tuple[np.ndarray, list[np.ndarray]]:
    """One session, stepped until told; its tokens and the answers."""
    session, rng = await client.open("tiny"), np.random.default_rng(0)
    sent: list[np.ndarray] = []
    answered: list[np.ndarray] = []
    while not end.is_set():
        sent.append(rng.integers(0, len(SYMBOLS), 3))
        answered.append((await session.step(sent[-1]))["logits"])
    return np.concatenate(sent), answered


def in_turn(sent: np.ndarray, answers: np.ndarray) -> int:
    """After how many steps the second weights took over from the first; answers that neither explains are an error."""
    models = [tiny_checkpoint(hidden=16, layers=2, seed=seed).model for seed in (0, 1)]
    state, version = models[0].stack.initial_state(1), 0
    changed = 0
    for k, (token, answer) in enumerate(zip(sent, answers, strict=True)):
        with torch.no_grad():
            both = [model(torch.tensor([[token]]), state) for model in models[version:]]
        fits = [np.abs(logits[0, 0].numpy() - answer).max() < 1e-4 for logits, _ in both]
        assert any(fits), f"step {k}"
        if not fits[0]:
            version, changed = 1, k
        state = both[fits.index(True)][1]
    return changed


@pytest.mark.parametrize("provider", [CUDA], indirect=True)
@pytest.mark.parametrize(("cell", "operator"), [("lstm", "LSTM"), ("highway-time", "Scan")])
async def test_what_cannot_be_recorded_is_refused_before_the_start(
    cell: str, operator: str, tmp_path: Path, provider: Provider
) -> None:
    tiny_characters(tmp_path, hidden=8, target="cuda", cell=cell)
    with pytest.raises(
        ModelError, match=rf"--cuda-graphs: {operator} cannot be recorded.*--single-step"
    ) as told:
        async with serving(tmp_path, **RECORDED):
            pass
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("provider", [CUDA], indirect=True)
async def test_more_sessions_than_the_device_has_room_for_are_refused_in_one_line(
    models: Path, tmp_path: Path, provider: Provider
) -> None:
    """512 GiB of rows."""
    file = tmp_path / "wide" / "model" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    graph = characters_model(tiny_checkpoint(hidden=512), Options(target="cuda"))
    file.write_bytes(graph.SerializeToString())
    wide = {"provider": provider, "max_sessions": 1 << 26, "max_batch": 4}
    with pytest.raises(ModelError, match=r"no room for .* rows .*--max-sessions") as told:
        async with serving(tmp_path / "wide", **wide):
            pass
    assert "\n" not in str(told.value)
    async with serving(models, provider=provider, max_batch=4) as (_, stub):
        await step(stub, await open_session(stub), 0, 3, 4)
