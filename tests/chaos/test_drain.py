"""SIGTERM under load, against a real process."""

import asyncio
import signal
import sys
from pathlib import Path

import grpc
import numpy as np

from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2_grpc import CarouselStub
from tests.processes import running_service
from tests.wire import answers, attach, open_session, steps


async def test_sigterm_finishes_what_is_queued_and_ends_with_code_0(repository) -> None:
    with running_service(repository) as service:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
            stub = CarouselStub(channel)
            sessions = [await open_session(stub) for _ in range(16)]
            call = stub.Stream()
            await call.write(attach(*sessions))
            await call.read()
            chunks = [[1] * 2000] * 16
            await call.write(steps(list(range(16)), [0] * 16, chunks))
            while not (await stub.Describe(pb.DescribeRequest(session=sessions[0]))).queued_chunks:
                await asyncio.sleep(0.001)
            service.process.send_signal(signal.SIGTERM)
            got: dict = {}
            while len(got) < 16:
                got |= answers([await call.read()])
        assert {key: len(value) for key, value in got.items()} == {(handle, 0): 2000 for handle in range(16)}
        assert all(np.array_equal(value, got[0, 0]) for value in got.values())
        assert await asyncio.to_thread(service.process.wait, 20) == 0


async def test_an_idle_service_with_an_open_stream_stops_at_once(repository) -> None:
    with running_service(repository) as service:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
            stub = CarouselStub(channel)
            call = stub.Stream()
            await call.write(attach(await open_session(stub)))
            await call.read()
            service.process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(service.process.wait, 10) == 0


async def test_a_second_server_on_the_same_port_fails_with_one_line(repository) -> None:
    with running_service(repository) as service:
        port = str(service.grpc_port)
        second = await asyncio.create_subprocess_exec(
            *service.process.args[:6], "--grpc-port", port, "--http-port", "0", stderr=asyncio.subprocess.PIPE
        )
        _, stderr = await second.communicate()
        assert second.returncode == 1
        assert (
            stderr.decode()
            .splitlines()[-1]
            .startswith(f"carousel serve: cannot listen on 127.0.0.1:{port}: is the port taken")
        )


async def test_sigterm_while_the_service_starts_ends_it_at_once_with_code_0(repository) -> None:
    command = [sys.executable, "-m", "cli", "serve", "--models", str(repository), "--grpc-port", "0"]
    process = await asyncio.create_subprocess_exec(
        *command, "--http-port", "0", "--max-batch", "65536", stderr=asyncio.subprocess.PIPE
    )
    status = Path(f"/proc/{process.pid}/status")
    while int(status.read_text().split("SigCgt:")[1].split()[0], 16) & 1 << signal.SIGTERM - 1 == 0:
        await asyncio.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    _, stderr = await process.communicate()
    assert process.returncode == 0
    assert b"Traceback" not in stderr
