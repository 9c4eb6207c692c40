import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bench.proxy import HOST, CuttableProxy

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """Sends back what it hears, and remembers it."""

    def __init__(self) -> None:
        self.heard = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1000):
                self.heard += data
                writer.write(data)
        except ConnectionResetError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def echo() -> Echo:
    return Echo()


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[CuttableProxy]:
    server = await asyncio.start_server(echo.serve, HOST, 0)
    async with server, CuttableProxy(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy


@asynccontextmanager
async def connected(proxy: CuttableProxy) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    yield reader, writer
    writer.close()


async def send(streams: Streams, data: bytes) -> bytes:
    streams[1].write(data)
    return await streams[0].read(1000)


async def test_bytes_travel_both_ways(proxy: CuttableProxy) -> None:
    async with connected(proxy) as streams:
        assert await send(streams, b"hello") == b"hello"
        streams[1].write_eof()
        assert await streams[0].read() == b"", "an end of one side is an end of the other"


async def test_a_cut_resets_the_present_connections_and_new_ones_work(proxy: CuttableProxy) -> None:
    async with connected(proxy) as streams:
        await send(streams, b"hello")
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await streams[0].read()
    async with connected(proxy) as streams:
        assert await send(streams, b"again") == b"again"
    assert proxy.accepted == 2


async def test_swallowed_answers_never_arrive_though_the_requests_did(
    proxy: CuttableProxy, echo: Echo
) -> None:
    async with connected(proxy) as streams:
        await send(streams, b"one")
        proxy.swallow_answers()
        answer = asyncio.create_task(send(streams, b"two"))
        async with asyncio.timeout(5):
            while echo.heard != b"onetwo":
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        assert not answer.done()
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await answer
    async with connected(proxy) as streams:
        assert await send(streams, b"three") == b"three"


async def test_a_target_that_is_not_there_ends_the_connection() -> None:
    async with CuttableProxy(1) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        assert await reader.read() == b""
        writer.close()
    assert proxy.accepted == 0
