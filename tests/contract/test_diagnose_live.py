"""What the gates of a running session do: by `Describe`, by the client and by `carousel diagnose --live`."""

import asyncio
import json
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from carousel.client import AsyncClient, AsyncSession
from cli.main import main
from export.door import export_checkpoint
from export.file import read_model
from export.options import Options
from service.server import Server, start_server
from service.settings import Settings
from tests.house import ALICE, identities, serving
from tests.models import SYMBOLS, tiny_characters, tiny_checkpoint

LAYERS = ("layer0", "layer1")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`seen`, observed, and `plain`, the same without."""
    folder = tmp_path_factory.mktemp("observed")
    export_checkpoint(tiny_checkpoint(hidden=6, layers=2), folder / "seen", options=Options(observe=True))
    tiny_characters(folder, hidden=6, layers=2, name="plain")
    return folder


@asynccontextmanager
async def running(models: Path) -> AsyncIterator[Server]:
    server = await start_server(Settings.load({"models": models, "grpc_port": 0, "http_port": 0}))
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture
async def observed(models: Path) -> AsyncIterator[Server]:
    async with running(models) as server:
        yield server


@pytest.fixture
async def client(observed: Server) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(address(observed)) as client:
        yield client


def address(server: Server) -> str:
    return f"127.0.0.1:{server.grpc_port}"


def directly(file: Path, chunks: list[np.ndarray]) -> list[dict[str, float]]:
    """The same by ONNX Runtime alone, a run for each chunk."""
    contract = read_model(file).contract
    assert contract.observed is not None
    (plane,) = contract.planes
    state = np.zeros((1, plane.size), np.float32)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found = []
    for tokens in chunks:
        feeds = {"tokens": tokens[None], "lengths": np.array([len(tokens)], np.int32), plane.input: state}
        values, state = session.run([contract.observed.output, plane.output], feeds)
        found.append(dict(zip(contract.observed.statistics, values[0].tolist(), strict=True)))
    return found


async def test_a_session_tells_what_a_direct_run_of_the_graph_gives(
    client: AsyncClient, models: Path
) -> None:
    tokens = np.random.default_rng(0).integers(len(SYMBOLS), size=9)
    chunks = [tokens[:5], tokens[5:6], tokens[6:]]
    session, idle = await client.open("seen"), await client.open("seen")
    assert (await session.describe()).observed == {}
    for chunk, expected in zip(chunks, directly(models / "seen/1/model.onnx", chunks), strict=True):
        await session.step(chunk)
        told = (await session.describe()).observed
        assert list(told) == list(expected)
        np.testing.assert_allclose(list(told.values()), list(expected.values()), rtol=1e-6)
    assert (await idle.describe()).observed == {}
    listed = {one.id: one.observed async for one in client.list_sessions()}
    assert listed == {session.id: told, idle.id: {}}


async def test_a_copy_and_a_session_that_was_put_back_tell_nothing_before_they_step(
    client: AsyncClient,
) -> None:
    session = await client.open("seen")
    saved = await session.snapshot()
    await session.step(np.array([1, 2]))
    (copy,) = await session.fork()
    assert (await copy.describe()).observed == {}
    await session.restore(saved)
    assert (await session.describe()).observed == {}
    await copy.step(np.array([3]))
    assert (await copy.describe()).observed
    assert (await session.describe()).observed == {}


async def test_names_are_those_of_the_version_that_runs(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "plain" / "1", tmp_path / "text" / "1")
    async with running(tmp_path) as server, AsyncClient(address(server)) as client:
        session = await client.open("text")
        await session.step(np.array([1]))
        assert (await session.describe()).observed == {}
        shutil.copytree(models / "seen" / "1", tmp_path / "text" / "2")
        assert (await client.load_model("text")).took_over
        await session.step(np.array([2]))
        told = await session.describe()
    assert told.version == "2"
    assert "layer1.forget.mean" in told.observed


def command(server: Server, session: str, out: Path, *more: str) -> list[str]:
    # An id that the server made may begin like an option.
    return ["diagnose", "--live", address(server), f"--session={session}", "--out", str(out), *more]


def describes(server: Server) -> float:
    """How often the server was asked where a session stands."""
    value = server.metrics.registry.get_sample_value
    return value("carousel_requests_total", {"method": "Describe", "code": "OK"}) or 0


async def step_until(session: AsyncSession, server: Server, looks: int) -> None:
    """Make steps until it was looked at so many times more; one look of an attach is among them."""
    enough = describes(server) + looks
    async with asyncio.timeout(60):
        while describes(server) < enough:
            await session.step(np.array([1 + session.next_index % 20]))
            await asyncio.sleep(0.01)


def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text(), parse_constant=pytest.fail)
    return found


async def test_the_report_draws_the_history_of_a_session_until_it_ends(
    observed: Server, client: AsyncClient, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = await client.open("seen", session="diary")
    await session.step(np.array([7]))
    live = asyncio.create_task(
        asyncio.to_thread(main, command(observed, "diary", tmp_path, "--every", "0.02"))
    )
    await step_until(session, observed, 12)
    steps = await session.close()
    assert await live == 0
    assert capsys.readouterr().out == f"{tmp_path / 'index.html'}\n"

    found = report(tmp_path)
    assert set(found) == {"title", "facts", "mean", "saturated", "norm"}
    assert found["facts"]["model"] == "seen/1"
    assert "closed" in found["facts"]["asked"]
    seen = found["mean"]["steps"]
    assert len(seen) >= 5
    assert seen == sorted(set(seen))
    assert seen[0] > 1
    assert seen[-1] <= steps
    tokens = [np.array([7]), *(np.array([1 + index % 20]) for index in range(1, steps))]
    expected = directly(models / "seen/1/model.onnx", tokens)
    for kind, names in (("mean", ("input", "forget", "output")), ("norm", ("hidden", "cell"))):
        for layer in LAYERS:
            assert tuple(found[kind][layer]) == names
            for name in names:
                line = [expected[step - 1][f"{layer}.{name}.{kind}"] for step in seen]
                np.testing.assert_allclose(found[kind][layer][name], line, rtol=1e-6)

    page = (tmp_path / "index.html").read_text()
    assert page.count("<img ") == page.count('src="data:image/svg+xml;base64,') == 3
    assert "http" not in page.replace("http-equiv", "")


async def test_the_time_ends_it(observed: Server, client: AsyncClient, tmp_path: Path) -> None:
    session = await client.open("seen")
    options = ("--seconds", "1", "--every", "0.05")
    live = asyncio.create_task(asyncio.to_thread(main, command(observed, session.id, tmp_path, *options)))
    while not live.done():
        await session.step(np.array([1]))
        await asyncio.sleep(0.02)
    assert await live == 0
    assert report(tmp_path)["facts"]["asked"] == "every 0.05 s, until 1 s were over"


@pytest.mark.usefixtures("interruptible")
async def test_ctrl_c_ends_it_and_keeps_what_was_seen(
    observed: Server, client: AsyncClient, tmp_path: Path
) -> None:
    session = await client.open("seen")
    arguments = command(observed, session.id, tmp_path, "--seconds", "60")
    live = await asyncio.create_subprocess_exec(sys.executable, "-m", "cli", *arguments)
    await step_until(session, observed, 6)
    live.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(live.wait(), 60) == 0
    assert report(tmp_path)["facts"]["asked"].endswith("until Ctrl-C")


async def test_what_cannot_be_watched_is_one_line(
    observed: Server, client: AsyncClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, idle = await client.open("plain"), await client.open("seen", session="idle")
    await idle.step(np.array([1]))
    for session, words in (
        (plain.id, "plain/1: expected a model exported with --observe, came one without"),
        ("nobody", "session 'nobody' does not exist"),
        ("idle", "session 'idle' made no step that could be seen (0.2 s were over)"),
    ):
        arguments = command(observed, session, tmp_path / "report", "--seconds", "0.2")
        assert await asyncio.to_thread(main, arguments) == 1
        assert capsys.readouterr().err == f"carousel diagnose: {words}\n"
    assert not (tmp_path / "report").exists()


def test_a_server_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cli.diagnose_live.ANSWER_S", 0.2)
    assert main(["diagnose", "--live", "127.0.0.1:1", "--session", "x"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("carousel diagnose: no answer from 127.0.0.1:1 within 0.2 s")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--live", "x:1"], "--live: expected --session ID, came none"),
        (["--live", "x:1", "--session", "s", "--data", "f"], "expected no --data and no --beside"),
        (["a-run", "--session", "s"], "--session: expected --live ADDRESS beside it"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["diagnose", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


@pytest.mark.parametrize("arguments", [[], ["a-run", "--live", "x:1"], ["--live", "x:1", "--every", "0"]])
def test_a_checkpoint_or_a_service_and_not_both(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["diagnose", *arguments])
    assert caught.value.code == 2


async def test_a_server_that_knows_its_callers_wants_the_token(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text(ALICE + "\n")
    async with serving(models, tmp_path / "identities.toml", identities()) as house:
        async with AsyncClient(house.address, token=ALICE) as client:
            await client.open("seen", session="mine")
        arguments = command(house.server, "mine", tmp_path / "report", "--seconds", "0.1")
        for more, words in (
            (["--token-file", str(tmp_path / "token")], "made no step"),
            ([], "expected 'Bearer TOKEN'"),
        ):
            assert await asyncio.to_thread(main, [*arguments, *more]) == 1
            (line,) = capsys.readouterr().err.splitlines()
            assert words in line
