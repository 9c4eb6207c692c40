"""Every panel of the dashboard shows something of a server that works: a real Prometheus answers its queries."""

import asyncio
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from carousel.client import AsyncClient
from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2_grpc import CarouselStub
from tests.dashboard import DASHBOARD, DEPLOY
from tests.processes import Service, running_service
from tests.prometheus import Prometheus
from tests.wire import open_session, tokens

pytestmark = pytest.mark.compose

PAUSE_S = 0.1
"""Between rounds of work: nobody reads the log of the service, so what it tells must fit into a pipe."""


@pytest.fixture
def service(repository: Path) -> Iterator[Service]:
    with running_service(repository, "--session-ttl-s", "1") as service:
        yield service


@pytest.fixture
def prometheus(service: Service, tmp_path: Path) -> Iterator[Prometheus]:
    """The configuration that is deployed, with another target, looking more often."""
    found = shutil.which("prometheus")
    if found is None:
        pytest.skip("prometheus is not installed")
    text = (DEPLOY / "prometheus.yml").read_text()
    for deployed, here in {
        "carousel:8002": f"127.0.0.1:{service.http_port}",
        "5s": "250ms",
        "alerts.yml": str(DEPLOY / "alerts.yml"),
    }.items():
        assert deployed in text
        text = text.replace(deployed, here)
    (tmp_path / "prometheus.yml").write_text(text)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [found, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stderr=log)
    yield Prometheus(f"http://{address}")
    process.terminate()
    assert process.wait(10) == 0, (tmp_path / "log").read_text()


async def work(service: Service) -> None:
    """Steps of mixed lengths, a repetition, a refusal and a session that is left to expire, over and over."""
    target = f"127.0.0.1:{service.grpc_port}"
    async with AsyncClient(target) as client, grpc.aio.insecure_channel(target) as channel:
        stub = CarouselStub(channel)
        sessions = [await client.open("tiny") for _ in range(8)]
        while True:
            left = await open_session(stub)
            for inputs in ([1, 2, 3], [1, 2, 3], [10**6]):
                step = pb.StepRequest(session=left, first_index=0, length=len(inputs), inputs=tokens(*inputs))
                await asyncio.gather(stub.Step(step), return_exceptions=True)
            await asyncio.gather(*(session.step(np.full(5 + k, 1)) for k, session in enumerate(sessions)))
            await asyncio.sleep(PAUSE_S)


async def silent_after(prometheus: Prometheus, seconds: float) -> list[str]:
    """Panels that show nothing by then; comes back as soon as there is none."""
    end = time.monotonic() + seconds
    while True:
        try:
            silent = await asyncio.to_thread(prometheus.silent_panels, "5s")
        except OSError as error:
            silent = [f"Prometheus is still starting: {error}"]
        if not silent or time.monotonic() > end:
            return silent
        await asyncio.sleep(0.5)


async def test_every_panel_has_something_to_show(service: Service, prometheus: Prometheus) -> None:
    working = asyncio.create_task(work(service))
    try:
        assert await silent_after(prometheus, 30) == []
        assert not working.done()
        assert {rule["health"] for rule in prometheus.rules()} == {"ok"}
        for variable in DASHBOARD["templating"]["list"]:
            asked = re.fullmatch(r"label_values\((\w+),(\w+)\)", variable["query"]["query"])
            assert asked
            assert prometheus.get(f"label/{asked[2]}/values", **{"match[]": asked[1]})
        for annotation in DASHBOARD["annotations"]["list"]:
            assert prometheus.samples(annotation["target"]["expr"]) == []
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
