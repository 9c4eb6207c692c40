"""`docker compose up` for real: `make compose-test`. Needs a Docker engine, and is not part of the default tests."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carousel.client import AsyncClient
from tests.dashboard import DASHBOARD, DEPLOY
from tests.prometheus import Prometheus

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
TARGET = "127.0.0.1:8001"
PROMETHEUS = Prometheus("http://127.0.0.1:9090")
GRAFANA = "http://127.0.0.1:3000"
COMPOSE = [shutil.which("docker-compose")] if shutil.which("docker-compose") else ["docker", "compose"]
PROJECT = "carousel-test"
CUDA_PROVIDER = "site-packages/onnxruntime/capi/libonnxruntime_providers_cuda.so"


def compose(*arguments: str) -> str:
    command = [*COMPOSE, "--project-name", PROJECT, *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env=os.environ)
    return done.stdout


def fetch(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as response:
        return json.load(response)


def docker(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)


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
        compose("--profile", "dashboards", "down", "--volumes")


async def test_a_client_streams_to_the_container() -> None:
    async with AsyncClient(TARGET) as client:
        session = await client.open("stdlib")
        whole = await session.step(np.arange(1, 20))
        assert whole["logits"].shape == (19, 100)


def test_prometheus_really_scrapes_the_service() -> None:
    (up,) = eventually("scraped", lambda: PROMETHEUS.samples("up{job='carousel'}==1"), 60)
    assert up["metric"]["instance"] == "carousel:8002"
    (steps,) = eventually("steps counted", lambda: PROMETHEUS.samples("carousel_steps_total>=19"), 60)
    assert steps["metric"]["model"] == "stdlib/1"


def test_prometheus_has_loaded_every_alert_rule() -> None:
    def evaluated() -> list[Any]:
        rules = PROMETHEUS.rules()
        return [] if any(rule["health"] == "unknown" for rule in rules) else rules

    rules = eventually("evaluated", evaluated, 60)
    assert [rule["name"] for rule in rules] == re.findall(
        r"- alert: (\w+)", (DEPLOY / "alerts.yml").read_text()
    )
    assert {rule["health"] for rule in rules} == {"ok"}
    eventually("quiet", lambda: not any(rule["alerts"] for rule in PROMETHEUS.rules()), 60)


def test_prometheus_answers_what_the_dashboard_asks() -> None:
    def shown() -> bool:
        return "How many steps are made?" not in PROMETHEUS.silent_panels("5m")

    eventually("steps shown", shown, 60)


def test_grafana_shows_the_dashboard_to_whoever_comes_and_lets_nobody_in() -> None:
    (image,) = re.findall(r"image: (grafana/\S+)", (DEPLOY.parent / "docker-compose.yml").read_text())
    if docker("image", "inspect", image).returncode and (pull := docker("pull", image)).returncode:
        pytest.skip(f"{image} cannot be had here: {pull.stderr.strip().splitlines()[-1]}")
    compose("--profile", "dashboards", "up", "--detach", "grafana")
    shown = eventually("shown", lambda: fetch(f"{GRAFANA}/api/dashboards/uid/{DASHBOARD['uid']}"), 120)
    assert shown["dashboard"]["title"] == DASHBOARD["title"]
    assert not shown["meta"]["canSave"]
    query = {"refId": "A", "datasource": {"uid": "prometheus"}, "expr": "up", "instant": True}
    answer = fetch(f"{GRAFANA}/api/ds/query", {"from": "now-5m", "to": "now", "queries": [query]})
    assert answer["results"]["A"]["frames"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetch(f"{GRAFANA}/login", {"user": "admin", "password": "admin"})
    refused.value.close()


def test_the_container_is_healthy_not_root_and_cannot_write() -> None:
    container = compose("ps", "-q", "carousel").strip()
    state = eventually(
        "healthy", lambda: inspect(container, ".State.Health.Status") == "healthy" and container, 60
    )
    assert docker("exec", state, "id", "-u").stdout.strip() == "10001"
    assert docker("exec", state, "touch", "/models/x").returncode != 0


def inspect(container: str, what: str) -> str:
    return docker("inspect", "--format", f"{{{{{what}}}}}", container).stdout.strip()


def test_the_gpu_service_misses_nothing_but_a_gpu_and_says_so_in_one_line() -> None:
    compose("--profile", "gpu", "build", "carousel-gpu")
    run = ("run", "--rm", "--read-only", "--volume", f"{PROJECT}_models:/models:ro")
    provider = f"$(find /opt -path '*/{CUDA_PROVIDER}')"
    linked = docker(*run, "--entrypoint", "sh", "carousel-gpu", "-ec", f"ldd {provider}").stdout
    missing = re.findall(r"(\S+) => not found", linked)
    assert "libcublasLt" in linked
    assert missing in ([], ["libcuda.so.1"])  # the driver comes with the GPU
    ended = docker(*run, "carousel-gpu")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("carousel serve: provider cuda: ")


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
    stopped = json.loads(docker("logs", container).stderr.strip().splitlines()[-1])
    assert (stopped["event"], stopped["drained"]) == ("stopped", True)
