"""One measurement: a server process, some client processes, and what each of them used."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from bench.load import Measured, Plan

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Target:
    """A server under load."""

    name: str
    kind: str
    """As in `bench.load.Plan`."""
    port: int
    pid: int


@dataclass(frozen=True)
class Load:
    """What all clients of a measurement do together; see `bench.load.Plan`."""

    clients: int
    streams: int
    sessions: int
    depth: int
    seconds: float
    input_size: int
    rate: float | None = None
    """Steps a second of all clients."""


@dataclass(frozen=True)
class Sample:
    """One measurement of one server."""

    target: str
    steps_per_second: float
    p50_ms: float
    p99_ms: float
    server_cpu: float
    """Share of one core."""
    server_cpu_us_per_step: float
    client_cpu: list[float]
    """Share of one core, each client."""


@contextmanager
def echo(kind: str) -> Iterator[Target]:
    """A bare echo server: `bytes` or `columns`."""
    command = [sys.executable, "-m", "bench.echo", kind]
    with _process(command, stdout=subprocess.PIPE) as process:
        yield Target(f"echo of {kind}", kind, int(_line(process.stdout)), process.pid)


@contextmanager
def service(models: Path) -> Iterator[Target]:
    """`carousel serve` with the model `bench`."""
    command = [sys.executable, "-m", "cli", "serve", "--models", str(models), "--grpc-port", "0"]
    command += ["--http-port", "0", "--log-format", "json"]
    with _process(command, stderr=subprocess.PIPE) as process:
        event = json.loads(_line(process.stderr))
        yield Target("carousel", "service", event["grpc_port"], process.pid)


def measure(target: Target, load: Load) -> Sample:
    """Run the clients against a server, all at once, and put together what they measured."""
    plan = Plan(
        port=target.port,
        kind=target.kind,
        streams=load.streams // load.clients,
        sessions=load.sessions,
        depth=load.depth,
        seconds=load.seconds,
        input_size=load.input_size,
        rate=load.rate / load.clients / load.sessions if load.rate else None,
    )
    command = [sys.executable, "-m", "bench.load", json.dumps(asdict(plan))]
    clients = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(load.clients)
    ]
    try:
        for client in clients:
            _line(client.stdout)
        before = _cpu_seconds(target.pid)
        for client in clients:
            assert client.stdin is not None
            client.stdin.write("go\n")
            client.stdin.flush()
        measured = [Measured(**json.loads(_line(client.stdout))) for client in clients]
        used = _cpu_seconds(target.pid) - before
    finally:
        for client in clients:
            client.kill()
            client.communicate()
    return _sample(target, load, measured, used)


def _sample(target: Target, load: Load, measured: list[Measured], used: float) -> Sample:
    latencies = sorted(took for one in measured for took in one.latencies_ms)
    steps = sum(one.all_steps for one in measured)
    rate = sum(one.steps for one in measured) / load.seconds
    return Sample(
        target=target.name,
        steps_per_second=rate,
        p50_ms=latencies[len(latencies) // 2],
        p99_ms=latencies[min(len(latencies) - 1, int(len(latencies) * 0.99))],
        server_cpu=used / steps * rate,
        server_cpu_us_per_step=used / steps * 1e6,
        client_cpu=[one.cpu_seconds / one.all_steps * one.steps / load.seconds for one in measured],
    )


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process, from `/proc` (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def _process(command: list[str], **pipes: int) -> Iterator["subprocess.Popen[Any]"]:
    process = subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def _line(pipe: IO[str] | None) -> str:
    assert pipe is not None
    line = pipe.readline()
    if not line:
        raise RuntimeError("a process of the benchmark ended early; what it said is above")
    return line
