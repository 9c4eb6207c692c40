"""A TCP proxy whose connections can be broken on command, between a client and a server on this machine."""

import asyncio
import socket
import struct
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
READ_BYTES = 1 << 16
# Closing with a linger time of 0 sends a reset: both ends see a broken connection, not a closed one.
RESET = struct.pack("ii", 1, 0)


class _Connection:
    """One client's connection and ours to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.swallows = False
        self.frozen = False
        self._ends = (client, server)

    def reset(self) -> None:
        for end in self._ends:
            if not end.transport.is_closing():
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                end.transport.abort()

    def close(self) -> None:
        for end in self._ends:
            end.close()


class CuttableProxy:
    """Listens on a free port of 127.0.0.1 and forwards to another, until told to break things.

    async with CuttableProxy(server_port) as proxy:
        client = AsyncClient(f"127.0.0.1:{proxy.port}")
        proxy.swallow_answers()
        proxy.cut()

    Args:
        target_port: Where the server listens.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        """Where the proxy listens, once it was started."""
        self.accepted = 0
        """Connections ever made through the proxy."""
        self._live: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def swallow_answers(self) -> None:
        """Read and drop whatever the server sends on the present connections; requests still get through."""
        for connection in self._live:
            connection.swallows = True

    def freeze(self) -> None:
        """Forward nothing more on the present connections, in no direction, and close neither end."""
        for connection in self._live:
            connection.frozen = True

    def cut(self) -> None:
        """Reset the present connections. New ones work, and swallow nothing."""
        for connection in self._live:
            connection.reset()

    async def _accept(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._forward(from_client, to_client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection(HOST, self.target_port)
        except OSError:
            to_client.transport.abort()
            return
        connection = _Connection(to_client, to_server)
        self.accepted += 1
        self._live.add(connection)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._requests(from_client, to_server, connection))
                pumps.create_task(self._answers(from_server, to_client, connection))
        except* OSError:
            pass  # one side is gone; the other is told below
        finally:
            self._live.discard(connection)
            connection.close()

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: _Connection
    ) -> None:
        while data := await reader.read(READ_BYTES):
            if not connection.frozen:
                writer.write(data)
                await writer.drain()
        writer.write_eof()

    async def _answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: _Connection
    ) -> None:
        while data := await reader.read(READ_BYTES):
            if not connection.swallows and not connection.frozen:
                writer.write(data)
                await writer.drain()
        writer.write_eof()
