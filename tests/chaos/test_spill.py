"""More sessions than memory: what leaves for the disk comes back as it was, and a full disk stops nobody."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from carousel.client import AsyncClient
from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2_grpc import CarouselStub
from service.errors import SessionExpiredError
from service.server import Server, start_server
from service.settings import Settings
from service.spill import RESERVE_BYTES, RETRY_S, SpillFile
from tests.fakes import Harness
from tests.models import SYMBOLS
from tests.wire import answers, attach, converse, open_session, steps, tokens

RESIDENT = 4


@asynccontextmanager
async def spilling(repository: Path, folder: Path, **settings: object) -> AsyncIterator[Server]:
    given = {"models": repository, "grpc_port": 0, "http_port": 0, "state_dir": folder}
    server = await start_server(Settings.load(given | {"resident_sessions": RESIDENT} | settings))
    try:
        yield server
    finally:
        await server.stop()


def client_of(server: Server) -> AsyncClient:
    return AsyncClient(f"127.0.0.1:{server.grpc_port}")


@asynccontextmanager
async def stub_of(server: Server) -> AsyncIterator[CarouselStub]:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}", options) as channel:
        yield CarouselStub(channel)


def spilled(server: Server) -> float:
    return server.metrics.registry.get_sample_value("carousel_sessions_spilled") or 0.0


async def test_answers_are_bit_for_bit_those_of_a_server_with_room_for_all(
    repository: Path, server: Server, tmp_path: Path
) -> None:
    rng = np.random.default_rng(2)
    async with (
        spilling(repository, tmp_path) as small,
        client_of(small) as ours,
        client_of(server) as theirs,
    ):
        pairs = [(await ours.open("tiny"), await theirs.open("tiny")) for _ in range(40)]
        for _ in range(30):
            some = rng.choice(len(pairs), rng.integers(1, 12), replace=False)
            chunks = [rng.integers(0, len(SYMBOLS), rng.integers(1, 9)) for _ in some]
            for side in (0, 1):
                sent = (pairs[k][side].step(chunk) for k, chunk in zip(some, chunks, strict=True))
                answered = await asyncio.gather(*sent)
                logits = [answer["logits"] for answer in answered]
                if side == 0:
                    spilling_logits = logits
            for mine, other in zip(spilling_logits, logits, strict=True):
                np.testing.assert_array_equal(mine, other)
        assert spilled(small) > len(pairs) / 2
        assert small.engine.served[0].rows.used <= RESIDENT + 12


async def test_spilled_sessions_that_close_or_expire_leave_their_places_to_others(
    repository: Path, tmp_path: Path
) -> None:
    async with spilling(repository, tmp_path, max_sessions=24) as server, client_of(server) as client:
        for ending in ("close", "expire"):
            sessions = [await client.open("tiny") for _ in range(24)]
            for session in sessions:
                await session.step(np.array([1]))
            assert spilled(server) >= 24 - RESIDENT - 1
            for session in sessions:
                if ending == "close":
                    await session.close()
                else:
                    slot = server.engine.table.find("anonymous", session.id, server.engine.clock())
                    server.engine.end(slot, SessionExpiredError)
            assert spilled(server) == server.engine.served[0].rows.used == 0


async def test_a_full_disk_stops_nobody_who_has_a_row_and_is_over_when_there_is_room(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with spilling(repository, tmp_path, max_queued_chunks=8) as server, stub_of(server) as stub:
        sessions = [await open_session(stub) for _ in range(30)]
        with monkeypatch.context() as patch:
            patch.setattr(SpillFile, "reserve", full)
            stepped = [session for session in sessions if not await why_not(stub, session, 0, 1)]
            assert len(stepped) == RESIDENT + 8
            assert not any([await why_not(stub, session, 1, 2) for session in stepped])
            assert "idle ones cannot be written to disk" in await why_not(stub, sessions[-1], 0, 1)
        await asyncio.sleep(RETRY_S)
        late = [session for session in sessions if session not in stepped]
        assert not any([await why_not(stub, session, 0, 1) for session in late])
        assert not any([await why_not(stub, session, 1, 2) for session in late])
        assert spilled(server) >= 30 - RESIDENT - 1
        third = [await converse(stub, attach(session), steps([0], [2], [[3]])) for session in sessions]
        whole = await converse(stub, attach(await open_session(stub)), steps([0], [0], [[1, 2, 3]]))
        for responses in third:
            np.testing.assert_array_equal(answers(responses)[0, 2][0], answers(whole)[0, 0][2])


async def why_not(stub: CarouselStub, session: str, index: int, token: int) -> str:
    """Make a step of a session; returns why it could not be made, or nothing."""
    request = pb.StepRequest(session=session, first_index=index, inputs=tokens(token))
    try:
        await stub.Step(request)
    except grpc.aio.AioRpcError as error:
        return error.details() or "?"
    return ""


def test_rows_leave_as_fast_as_new_sessions_come(tmp_path: Path) -> None:
    h = Harness(sessions=100, queue_chunks=4, resident=3)
    for _ in range(100):
        h.send(h.open(), 0, [1.0])
        h.settle()
        h.now += 1
        assert h.model.rows.used <= 3 + 1


def test_the_disk_has_room_for_a_row_before_it_is_written(tmp_path: Path) -> None:
    # A mapped page that finds the disk full would end the process.
    file = SpillFile(tmp_path / "spill", places=1 << 20, resident=1)
    rows = file.open(np.dtype((np.void, 1000)))
    for place in (0, 7, 2000, 100_000):
        file.reserve(np.array([0, place]))
        taken = (tmp_path / "spill").stat().st_blocks * 512
        assert (place + 1) * 1000 <= taken < (place + 1) * 1000 + 2 * RESERVE_BYTES
    rows[2000] = b"x" * 1000
    file.reserve(np.array([150_000]))
    assert rows[2000].tobytes() == b"x" * 1000
    file.close()
    assert not list(tmp_path.iterdir())


def test_a_second_server_on_the_same_folder_takes_no_states_from_the_first(tmp_path: Path) -> None:
    first, second = (SpillFile(tmp_path / "spill", places=10, resident=1) for _ in range(2))
    ours = first.open(np.dtype((np.void, 8)))
    first.reserve(np.array([3]))
    ours[3] = b"12345678"
    theirs = second.open(np.dtype((np.void, 8)))
    second.reserve(np.array([3]))
    theirs[3] = b"abcdefgh"
    second.close()
    first.reserve(np.array([9]))
    assert ours[3].tobytes() == b"12345678"
    first.close()


def test_who_finds_no_room_looks_once_more_for_sessions_that_are_idle_by_now() -> None:
    h = Harness(resident=1)
    sessions = [h.open(), h.open()]
    for session in sessions:
        h.send(session, 0, [1.0])
    h.start_run()
    assert h.engine.spilling.next_move(h.now) is None, "rows run short, and nobody is idle"
    h.finish_run()
    assert h.engine.spilling.next_move(h.now) is None, "it does not look at every run"
    assert h.engine.spilling.look_again(h.now)
    assert not h.engine.spilling.look_again(h.now), "once is enough"
    assert h.engine.spilling.next_move(h.now) is not None
