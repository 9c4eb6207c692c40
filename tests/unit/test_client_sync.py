"""The blocking client. The fake server has a loop and a thread of its own, as a server elsewhere would."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from carousel.client import Client, InvalidInputError, ServerUnreachableError, StepTimeoutError
from tests.unit.fake_server import FakeServer, listening
from tests.unit.stepping import pair


@pytest.fixture
def fake() -> FakeServer:
    return FakeServer()


@pytest.fixture
def port(fake: FakeServer) -> Iterator[int]:
    ready, stop, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()
    ports: list[int] = []

    async def serve() -> None:
        async with listening(fake) as bound:
            ports.append(bound)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    ready.wait(5)
    yield ports[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()
    assert fake.mistakes == []


@pytest.fixture
def client(port: int) -> Iterator[Client]:
    with Client(f"127.0.0.1:{port}", timeout_s=5) as client:
        yield client


def test_a_session_is_opened_stepped_described_found_again_and_closed(client: Client) -> None:
    session = client.open("sum", session="mine")
    outputs = session.step(pair(1, steps=3))
    np.testing.assert_array_equal(outputs["y"][:, 0], [1, 2, 3])
    assert session.describe().next_index == 3
    again = client.attach("mine")
    assert (again.id, again.model, again.version, again.next_index) == ("mine", "sum", "1", 3)
    assert again.contract == session.contract
    assert again.chunk_steps == 100
    assert session.close() == 3


def test_threads_share_a_session_and_nothing_is_lost_or_doubled(client: Client) -> None:
    session = client.open("sum")
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: float(session.step(pair(1))["y"][0, 0]), range(200)))
    assert sorted(answers) == list(range(1, 201))


def test_errors_reach_the_calling_thread(client: Client, fake: FakeServer) -> None:
    session = client.open("sum")
    with pytest.raises(InvalidInputError):
        session.step(np.zeros((1, 2)))
    fake.refusals = {(session.id, 0): [12] * 1000}
    with pytest.raises(StepTimeoutError):
        session.step(pair(1), timeout_s=0.02)


def test_models_can_be_listed_run_loaded_and_unloaded(client: Client) -> None:
    assert {model.name for model in client.models()} == {"sum", "count", "mirror"}
    assert [model.version for model in client.failed_models()] == ["2"]
    assert client.infer("mirror", {"x": np.ones((1, 1, 2), np.float32)})["y"].tolist() == [[[-1, -1]]]
    assert client.load_model("sum").model.version == "1"
    assert client.unload_model("sum", "1") == 0


def test_copies_snapshots_and_forecasts_have_their_blocking_twins(client: Client) -> None:
    session = client.open("sum", session="mine")
    session.step(pair(1, steps=3))
    (copy,) = session.fork()
    assert copy.step(pair(1))["y"][0, 0] == 4
    snapshot = session.snapshot()
    assert session.forecast(1, [pair(5)])[0]["y"][0, 0] == 8
    session.step(pair(10))
    session.restore(snapshot)
    assert session.step(pair(1))["y"][0, 0] == 4
    assert client.open("sum", snapshot=snapshot).next_index == 3
    assert session.touch() == 60
    assert [found.id for found in client.list_sessions(prefix="mi")] == ["mine"]


def test_tokens_come_one_by_one_and_stop_when_nobody_asks(client: Client, fake: FakeServer) -> None:
    session = client.open("count")
    tokens = list(session.generate([1, 2], 5, seed=3))
    assert len(tokens) == 5
    assert session.next_index == 6
    endless = session.generate(tokens[-1:], 1 << 30)
    assert isinstance(next(endless), int)
    endless.close()
    session.step(np.array([1]))
    assert session.next_index == fake.sessions[session.id].next_index


def test_closing_ends_the_thread(port: int) -> None:
    before = threading.active_count()
    with Client(f"127.0.0.1:{port}") as client:
        client.models()
        assert threading.active_count() > before
    assert "carousel-client" not in {thread.name for thread in threading.enumerate()}


def test_a_server_that_is_not_there_is_an_error() -> None:
    with Client("127.0.0.1:1", timeout_s=0.05) as client, pytest.raises(ServerUnreachableError):
        client.open("sum")


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_what_was_waited_for() -> None:
    with Client("127.0.0.1:1", timeout_s=5) as client:
        main_thread = threading.get_ident()
        threading.Timer(0.05, signal.pthread_kill, (main_thread, signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            client.open("sum")
        loop = client._background._loop
        deadline = loop.time() + 2
        while {task.get_coro().__name__ for task in asyncio.all_tasks(loop)} & {"open"}:
            assert loop.time() < deadline, "the call goes on without its caller"


def test_a_client_that_cannot_be_made_leaves_no_thread(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Client(tls_root=tmp_path / "missing.pem")
    assert "carousel-client" not in {thread.name for thread in threading.enumerate()}
