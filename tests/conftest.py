"""A small model and a real server around it, for every test that wants them."""

import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import hypothesis
import pytest
import structlog

from carousel.wire.carousel_pb2_grpc import CarouselStub
from service.identity import ANONYMOUS, caller
from service.server import Server, start_server
from service.settings import Settings
from tests.models import tiny_characters

# Logs of what tests break on purpose would bury what they find.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
# No test is timed: a machine that others use may be slow at any moment.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")
# Whoever calls a method without gRPC in between is the anonymous administrator.
caller.set(ANONYMOUS)


def pytest_configure() -> None:
    """With CAROUSEL_TEST_CUDA in the environment, nothing is skipped for want of a device: there are no tests without."""
    if os.environ.get("CAROUSEL_TEST_CUDA"):
        from tests.gpu import expect_device  # noqa: PLC0415 - looks for a GPU when it is imported

        expect_device()


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one untrained character model, `tiny`."""
    folder = tmp_path_factory.mktemp("models")
    tiny_characters(folder, hidden=16, layers=2)
    return folder


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell starts its background jobs with SIGINT ignored, and a test run may be one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
async def server(repository: Path) -> AsyncIterator[Server]:
    """The whole service on free ports."""
    server = await start_server(Settings.load({"models": repository, "grpc_port": 0, "http_port": 0}))
    yield server
    await server.stop()


@pytest.fixture
async def stub(server: Server) -> AsyncIterator[CarouselStub]:
    """The generated client, as any language has it."""
    options = [("grpc.max_send_message_length", 64 << 20), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}", options) as channel:
        yield CarouselStub(channel)
