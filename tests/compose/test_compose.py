"""`docker compose up` for real: `make compose-test`. Needs a Docker engine, and is not part of the default tests."""

import asyncio
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carousel.client import AsyncClient

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
TARGET = "127.0.0.1:8001"
PROMETHEUS = "http://127.0.0.1:9090"
COMPOSE = [shutil.which("docker-compose")] if shutil.which("docker-compose") else ["docker", "compose"]
PROJECT = "carousel-test"


def compose(*arguments: str) -> str:
    command = [*COMPOSE, "--project-name", PROJECT, *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env=os.environ)
    return done.stdout


def fetch(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as response:
        return json.load(response)


def eventually(what: str, check: Callable[[], Any], seconds: float) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := check():
                return found
        except (OSError, ValueError):
            pass  # not yet
        time.sleep(0.5)
    raise AssertionError(f"{what}: not within {seconds} s")


@pytest.fixture(scope="module", autouse=True)
def everything_up() -> Iterator[None]:
    compose("build")
    compose("up", "--detach")
    try:
        eventually("ready", lambda: urllib.request.urlopen("http://127.0.0.1:8002/readyz").status == 200, 900)
        yield
    finally:
        compose("down", "--volumes")


async def test_a_client_streams_to_the_container() -> None:
    async with AsyncClient(TARGET) as client:
        session = await client.open("stdlib")
        whole = await session.step(np.arange(1, 20))
        assert whole["logits"].shape == (19, 100)


def series(query: str) -> list[Any]:
    return fetch(f"{PROMETHEUS}/api/v1/query?query={query}")["data"]["result"]


def test_prometheus_really_scrapes_the_service() -> None:
    (up,) = eventually("scraped", lambda: series("up{job='carousel'}==1"), 60)
    assert up["metric"]["instance"] == "carousel:8002"
    (steps,) = eventually("steps counted", lambda: series("carousel_steps_total>=19"), 60)
    assert steps["metric"]["model"] == "stdlib/1"


def test_prometheus_takes_the_alert_rules() -> None:
    (group,) = fetch(f"{PROMETHEUS}/api/v1/rules")["data"]["groups"]
    assert {rule["name"] for rule in group["rules"]} >= {"CarouselNotReady", "CarouselErrors"}
    assert {rule["health"] for rule in eventually("evaluated", evaluated, 60)} == {"ok"}


def evaluated() -> list[Any]:
    (group,) = fetch(f"{PROMETHEUS}/api/v1/rules")["data"]["groups"]
    return [] if any(rule["health"] == "unknown" for rule in group["rules"]) else group["rules"]


def test_the_container_is_healthy_not_root_and_cannot_write() -> None:
    container = compose("ps", "-q", "carousel").strip()
    state = eventually(
        "healthy", lambda: inspect(container, ".State.Health.Status") == "healthy" and container, 60
    )
    assert subprocess.check_output(["docker", "exec", state, "id", "-u"], text=True).strip() == "10001"
    write = subprocess.run(["docker", "exec", state, "touch", "/models/x"], capture_output=True, check=False)
    assert write.returncode != 0


def inspect(container: str, what: str) -> str:
    return subprocess.check_output(
        ["docker", "inspect", "--format", f"{{{{{what}}}}}", container], text=True
    ).strip()


def logs_of(container: str) -> str:
    return subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=True).stderr


async def test_stopping_the_container_drains_it() -> None:
    container = compose("ps", "-q", "carousel").strip()
    async with AsyncClient(TARGET) as client:
        sessions = [await client.open("stdlib") for _ in range(8)]
        steps = [asyncio.create_task(session.step(np.full(2000, 1))) for session in sessions]
        while (await sessions[-1].describe()).queued_chunks == 0 and not steps[-1].done():
            await asyncio.sleep(0.005)
        stop = await asyncio.create_subprocess_exec("docker", "stop", container)
        answers = await asyncio.gather(*steps)
        await stop.wait()
    assert all(len(answer["logits"]) == 2000 for answer in answers)
    assert inspect(container, ".State.ExitCode") == "0"
    stopped = json.loads(logs_of(container).strip().splitlines()[-1])
    assert (stopped["event"], stopped["drained"]) == ("stopped", True)
