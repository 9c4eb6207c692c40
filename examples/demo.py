"""The whole of Carousel in a few minutes: train, export, serve, stream, lose a connection, look at the metrics.

    make demo

Every stage runs what a person would run and prints its time. The training data is the source of Python's standard
library, which every machine has.
"""

import argparse
import asyncio
import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.proxy import CuttableProxy
from carousel.client import AsyncClient, AsyncSession
from carousel.text import decode, encode, sample

MODEL = "stdlib"
RECIPE = "characters-demo"
PROMPT = 'class Stack:\n    """A stack of items."""\n\n    def __init__(self'
CHARACTERS = 400
SEED = 1
STEPS = 60
CUT_AT = 30
METRICS = ("carousel_sessions", "carousel_steps_total", "carousel_chunks_total", "carousel_replays_total")
CAROUSEL = (sys.executable, "-m", "cli")


class Service(NamedTuple):
    """Where the running service listens."""

    grpc_port: int
    http_port: int


def main() -> None:
    """Run every stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=Path("models"), help="repository of models")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of training runs")
    args = parser.parse_args()
    started = time.perf_counter()
    if next((args.models / MODEL).glob("*/model.onnx"), None):
        print(f"{args.models / MODEL} is there already; remove it to train again.")
    else:
        make_model(args.models, args.runs)
    asyncio.run(use_model(args.models))
    print(f"\nAll of it took {time.perf_counter() - started:.0f} s. Now: make serve, and in another terminal")
    print("    .venv/bin/carousel stream")


def make_model(models: Path, runs: Path) -> None:
    """Train and export, as `make serve` does."""
    run = runs / MODEL
    with stage("Train a character model on the standard library's source"):
        if run.exists():  # left over from an interrupted demo
            shutil.rmtree(run)
        subprocess.run([*CAROUSEL, "train", RECIPE, "--out", str(run)], check=True)
    with stage("Export it as a stateful ONNX graph, verified against PyTorch"):
        subprocess.run([*CAROUSEL, "export", str(run), "--out", str(models / MODEL)], check=True)


async def use_model(models: Path) -> None:
    """Serve the model, stream from it, break a connection, look at the metrics, stop."""
    async with serving(models) as service:
        async with AsyncClient(f"127.0.0.1:{service.grpc_port}") as client:
            with stage("Stream a session: one character a step, its state stays on the server"):
                session = await client.open(MODEL)
                await write(session, PROMPT, CHARACTERS)
                await session.close()
            with stage("Lose the connection in the middle of a step, and go on exactly where it was"):
                await lose_connection(client, service)
        with stage("What Prometheus sees"):
            print(await asyncio.to_thread(show_metrics, service.http_port))


async def write(session: AsyncSession, prompt: str, characters: int) -> None:
    """Let the model continue a prompt, printing every character as it is sampled."""
    port = session.contract.inputs[0]
    rng = np.random.default_rng(SEED)
    print(prompt, end="", flush=True)
    logits = (await session.step(encode(prompt, port)))["logits"]
    for _ in range(characters):
        token = sample(logits[-1], 0.5, rng)
        print(decode([token], port), end="", flush=True)
        logits = (await session.step(np.array([token])))["logits"]
    print()


async def lose_connection(direct: AsyncClient, service: Service) -> None:
    """Step two sessions alike, one through a proxy that cuts its connection while a step is under way."""
    undisturbed, disturbed = [], []
    calm = await direct.open(MODEL)
    async with (
        CuttableProxy(service.grpc_port) as proxy,
        AsyncClient(f"127.0.0.1:{proxy.port}") as client,
    ):
        session = await client.open(MODEL)
        tokens = encode(PROMPT * 2, session.contract.inputs[0])[:STEPS]
        for index, token in enumerate(tokens):
            undisturbed.append(await logits_of(calm, token))
            if index == CUT_AT:
                disturbed.append(await cut_in_the_middle(proxy, direct, session, token))
            else:
                disturbed.append(await logits_of(session, token))
        same = np.array_equal(np.array(undisturbed), np.array(disturbed))
        print(f"the client connected {proxy.accepted} times and was told nothing of it")
        print(
            f"{len(tokens)} answers, bit for bit those of an undisturbed session: {'yes' if same else 'NO'}"
        )
        await session.close()
    await calm.close()
    if not same:
        sys.exit("the interrupted session differs from the undisturbed one: this is a bug")


async def cut_in_the_middle(
    proxy: CuttableProxy, observer: AsyncClient, session: AsyncSession, token: int
) -> NDArray[Any]:
    """Let the server take a step, keep its answer from the client, and cut the connection."""
    proxy.swallow_answers()
    answer = asyncio.create_task(logits_of(session, token))
    while (await observer.attach(session.id)).next_index <= CUT_AT:  # until the server has applied it
        await asyncio.sleep(0.001)
    print(f"step {CUT_AT}: applied by the server, its answer lost on the way; cutting the connection")
    proxy.cut()
    return await answer


async def logits_of(session: AsyncSession, token: int) -> NDArray[Any]:
    """The logits `[V]` after one token."""
    return (await session.step(np.array([token])))["logits"][-1]


def show_metrics(http_port: int) -> str:
    """A few lines of what `/metrics` serves."""
    with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/metrics") as response:
        lines = response.read().decode().splitlines()
    return "\n".join(line for line in lines if line.startswith(METRICS) and "_created" not in line)


@asynccontextmanager
async def serving(models: Path) -> AsyncIterator[Service]:
    """`carousel serve` as a process of its own, stopped with SIGTERM as an orchestrator would."""
    command = [*CAROUSEL, "serve", "--models", str(models), "--grpc-port", "0", "--http-port", "0"]
    with stage("Start the service"):
        process = await asyncio.create_subprocess_exec(
            *command, "--log-format", "json", stderr=asyncio.subprocess.PIPE
        )
        assert process.stderr is not None
        event: dict[str, Any] = {}
        while event.get("event") != "serving":
            line = await process.stderr.readline()
            try:
                event = json.loads(line)
            except ValueError:
                sys.exit(line.decode())
        service = Service(event["grpc_port"], event["http_port"])
        print(f"gRPC on 127.0.0.1:{service.grpc_port}, HTTP on 127.0.0.1:{service.http_port}")
    try:
        yield service
    finally:
        with stage("Stop it: drain, then end"):
            process.send_signal(signal.SIGTERM)
            await process.communicate()
            print(f"exit code {process.returncode}")


@contextmanager
def stage(title: str) -> Iterator[None]:
    """Announce a stage and print how long it took."""
    print(f"\n== {title}", flush=True)
    started = time.perf_counter()
    yield
    print(f"   {time.perf_counter() - started:.1f} s", flush=True)


if __name__ == "__main__":
    main()
