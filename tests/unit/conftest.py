"""A small server that is not ours, and a client of it."""

from collections.abc import AsyncIterator

import pytest

from carousel.client import AsyncClient
from tests.unit.fake_server import FakeServer, listening


@pytest.fixture
async def fake() -> AsyncIterator[FakeServer]:
    """A server that sums what it is sent, and breaks as it is told."""
    fake = FakeServer()
    yield fake
    assert fake.mistakes == []


@pytest.fixture
async def client(fake: FakeServer) -> AsyncIterator[AsyncClient]:
    """A client of the small server."""
    async with listening(fake) as port, AsyncClient(f"127.0.0.1:{port}", timeout_s=5) as client:
        yield client
