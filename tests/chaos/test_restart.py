"""Planned restarts of a real server, under load: nothing is lost, and what cannot be kept is said."""

import asyncio
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from bench.proxy import CuttableProxy
from carousel.client import AsyncClient, SessionGoneError
from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2 import Reason
from carousel.wire.carousel_pb2_grpc import CarouselStub
from service.drain_file import NAME
from service.server import Server
from tests.models import SYMBOLS, tiny_characters
from tests.processes import Service, running_service, serve_command
from tests.wire import answers, attach, converse, errors, open_session, steps

SESSIONS = 24
STEPS = 400


class Place:
    """Where one server follows the other: a port, models, and a folder for what each leaves to the next."""

    def __init__(self, models: Path, state: Path) -> None:
        self.models = models
        self.state = state
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.servers = ExitStack()

    @property
    def options(self) -> tuple[str, ...]:
        return ("--grpc-port", str(self.port), "--state-dir", str(self.state))

    async def start(self, *options: str) -> Service:
        running = running_service(self.models, *self.options, *options)
        return await asyncio.to_thread(self.servers.enter_context, running)

    def refused(self) -> str:
        """What a server says that does not want to start."""
        done = subprocess.run(
            serve_command(self.models, *self.options), stderr=subprocess.PIPE, text=True, check=False
        )
        assert done.returncode == 1
        return done.stderr

    def client(self) -> AsyncClient:
        return AsyncClient(f"127.0.0.1:{self.port}")

    @asynccontextmanager
    async def stub(self) -> AsyncIterator[CarouselStub]:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options) as channel:
            yield CarouselStub(channel)


async def stop(service: Service, number: int = signal.SIGTERM) -> int:
    service.process.send_signal(number)
    return await asyncio.to_thread(service.process.wait, 30)


@pytest.fixture
def place(repository: Path, tmp_path: Path) -> Iterator[Place]:
    shutil.copytree(repository, tmp_path / "models")
    place = Place(tmp_path / "models", tmp_path / "state")
    with place.servers:
        yield place


async def drive(client: AsyncClient, tokens: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Step a session through all tokens in many chunks, as many under way as may be; returns its logits."""
    session = await client.open("tiny")
    replies = await asyncio.gather(*(session.step(chunk) for chunk in np.split(tokens, cuts)))
    assert (await session.describe()).next_index == len(tokens)
    return np.concatenate([reply["logits"] for reply in replies])


async def drive_all(client: AsyncClient, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, len(SYMBOLS), (SESSIONS, STEPS))
    cuts = [np.flatnonzero(rng.random(STEPS - 1) < 0.5) + 1 for _ in tokens]
    return await asyncio.gather(*(drive(client, *one) for one in zip(tokens, cuts, strict=True)))


async def test_sessions_under_load_equal_undisturbed_ones_after_restarts_and_broken_connections(
    place: Place, server: Server
) -> None:
    async with AsyncClient(f"127.0.0.1:{server.grpc_port}") as client:
        calm = await drive_all(client, seed=5)
    rng = np.random.default_rng(7)
    service = await place.start()
    restarts = 0
    async with CuttableProxy(place.port) as proxy, AsyncClient(f"127.0.0.1:{proxy.port}") as client:
        driving = asyncio.create_task(drive_all(client, seed=5))
        while not driving.done() and restarts < 3:
            for _ in range(4):
                await asyncio.sleep(rng.uniform(0, 0.03))
                if rng.random() < 0.5:
                    proxy.swallow_answers()
                    await asyncio.sleep(0.005)
                proxy.cut()
            assert await stop(service) == 0
            service = await place.start()
            restarts += 1
        shaken = await driving
    assert restarts >= 2
    np.testing.assert_array_equal(shaken, calm)


async def test_a_client_sees_nothing_of_a_restart_between_two_steps(place: Place, server: Server) -> None:
    service = await place.start("--resident-sessions", "2")
    async with place.client() as client, AsyncClient(f"127.0.0.1:{server.grpc_port}") as other:
        sessions, calm = [[await one.open("tiny") for _ in range(8)] for one in (client, other)]
        for tokens in ([1, 2, 3], [4]):
            for ours, theirs in zip(sessions, calm, strict=True):
                logits = [(await one.step(np.array(tokens)))["logits"] for one in (ours, theirs)]
                np.testing.assert_array_equal(*logits)
            assert await stop(service) == 0
            service = await place.start("--resident-sessions", "2")
            assert not (place.state / NAME).exists()


async def test_an_unacknowledged_chunk_a_session_that_is_gone_and_an_open_are_known_after_a_restart(
    place: Place,
) -> None:
    service = await place.start()
    async with place.stub() as stub:
        opening = pb.OpenRequest(model="tiny", request_id="the one and only")
        session = (await stub.Open(opening)).session
        closed = await open_session(stub)
        before = answers(await converse(stub, attach(session, closed), steps([0, 1], [0, 0], [[1, 2], [3]])))
        closing = pb.CloseRequest(session=closed, request_id="once")
        await stub.Close(closing)
    assert await stop(service) == 0
    await place.start()
    async with place.stub() as stub:
        assert (await stub.Open(opening)).session == session
        assert (await stub.Close(closing)).steps == 1
        again = await converse(stub, attach(session, closed), steps([0], [0], [[1, 2]]))
        np.testing.assert_array_equal(answers(again)[0, 0], before[0, 0])
        (error,) = again[0].attached.errors
        assert (error.position, error.reason) == (1, Reason.SESSION_CLOSED)
        assert "after 1 steps" in error.message
        other = errors(await converse(stub, attach(session), steps([0], [0], [[2, 1]])))
        assert other[0, 0].reason == Reason.CONTENT_DIFFERS


async def test_what_was_left_by_a_drained_server_is_not_read_twice(place: Place) -> None:
    service = await place.start()
    async with place.client() as client:
        session = await client.open("tiny")
        await session.step(np.array([1]))
        assert await stop(service) == 0
        service = await place.start()
        await session.step(np.array([2]))
        assert await stop(service, signal.SIGKILL) != 0
        await place.start()
        with pytest.raises(SessionGoneError):
            await session.step(np.array([3]))


async def test_a_session_whose_model_was_taken_away_is_lost_and_says_after_how_many_steps(
    place: Place,
) -> None:
    service = await place.start()
    async with place.stub() as stub:
        session = await open_session(stub)
        await converse(stub, attach(session), steps([0], [0], [[1, 2, 3]]))
    assert await stop(service) == 0
    shutil.rmtree(place.models / "tiny" / "1")
    tiny_characters(place.models, hidden=16, layers=2, version=2, lineage="0dd" * 8)
    await place.start()
    async with place.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError, match=r"was lost .* after 3 steps") as caught:
            await stub.Describe(pb.DescribeRequest(session=session))
        assert ("carousel-reason", "SESSION_LOST") in tuple(caught.value.trailing_metadata())


async def test_a_damaged_file_of_a_drained_server_is_one_line_and_stays(place: Place) -> None:
    service = await place.start()
    async with place.client() as client:
        await client.open("tiny")
    assert await stop(service) == 0
    file = place.state / NAME
    damaged = file.read_bytes()[:-100]
    file.write_bytes(damaged)
    line = await asyncio.to_thread(place.refused)
    assert line.count("\n") == 1
    assert line.startswith(f"carousel serve: {file}: its sessions cannot be opened again")
    assert file.read_bytes() == damaged


async def test_a_server_that_finds_its_port_taken_leaves_the_sessions_to_the_next(place: Place) -> None:
    service = await place.start()
    async with place.client() as client:
        session = await client.open("tiny")
        await session.step(np.array([1]))
        assert await stop(service) == 0
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", place.port))
            taken.listen()
            assert "is the port taken" in await asyncio.to_thread(place.refused)
        await place.start()
        await session.step(np.array([2]))


async def test_without_a_folder_for_them_the_sessions_that_are_lost_are_counted(repository: Path) -> None:
    with running_service(repository) as service:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
            for _ in range(3):
                await open_session(CarouselStub(channel))
        assert await stop(service) == 0
        (lost,) = [event for event in service.last_words() if event["event"] == "sessions_lost"]
        assert (lost["level"], lost["sessions"]) == ("warning", 3)


async def test_a_second_signal_ends_a_server_that_still_has_work(place: Place) -> None:
    service = await place.start("--run-steps", "1", "--max-batch", "1", "--drain-s", "100")
    async with place.stub() as stub:
        sessions = [await open_session(stub) for _ in range(64)]
        call = stub.Stream()
        await call.write(attach(*sessions))
        await call.write(steps(list(range(64)), [0] * 64, [[1] * 4000] * 64))
        while not (await stub.Describe(pb.DescribeRequest(session=sessions[0]))).queued_chunks:
            await asyncio.sleep(0.001)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.stderr is not None
        assert "draining" in await asyncio.to_thread(service.process.stderr.readline)
        assert await stop(service) == 1
    assert [event["event"] for event in service.last_words()] == ["forced_stop"]
