"""One measurement: a server process, some client processes, and what each of them used."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
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
    steps: int = 1


@dataclass(frozen=True)
class Sample:
    """One measurement of one server."""

    target: str
    steps_per_second: float
    p50_ms: float
    p99_ms: float
    server_cpu: float
    """Share of one core, for all loads that ran at once."""
    server_cpu_us_per_step: float
    """Of all loads."""
    client_cpu: list[float]
    """Share of one core, each client."""


@contextmanager
def echo(kind: str) -> Iterator[Target]:
    """A bare echo server: `bytes` or `columns`."""
    command = [sys.executable, "-m", "bench.echo", kind]
    with _process(command, stdout=subprocess.PIPE) as process:
        yield Target(f"echo of {kind}", kind, int(_line(process.stdout)), process.pid)


@contextmanager
def service(models: Path, *options: str) -> Iterator[Target]:
    """`carousel serve` with the model `bench`."""
    with _process(serve_command(models, *options), stderr=subprocess.PIPE) as process:
        yield Target("carousel", "service", serving_port(process), process.pid)


@contextmanager
def padded(models: Path, most: int) -> Iterator[Target]:
    """The same model behind `bench.padded`, which runs at most so many sequences at once."""
    command = [sys.executable, "-m", "bench.padded", str(models / "bench" / "1" / "model.onnx"), str(most)]
    with _process(command, stdout=subprocess.PIPE) as process:
        yield Target("padding", "padded", int(_line(process.stdout)), process.pid)


def serve_command(models: Path, *options: str) -> list[str]:
    """`carousel serve` on free ports, telling them in JSON."""
    command = [sys.executable, "-m", "cli", "serve", "--models", str(models), "--grpc-port", "0"]
    return [*command, "--http-port", "0", "--log-format", "json", *options]


def serving_port(process: "subprocess.Popen[str]") -> int:
    """Wait until a server serves; its gRPC port."""
    while (event := json.loads(_line(process.stderr)))["event"] != "serving":
        pass
    return int(event["grpc_port"])


def measure(target: Target, load: Load) -> Sample:
    """Run the clients against a server, all at once, and put together what they measured."""
    return measure_together(target, [load])[0]


def measure_together(target: Target, loads: Sequence[Load]) -> list[Sample]:
    """Run the clients of several loads against a server, all at once; a sample for each load."""
    plans = [_plan(target, load) for load in loads for _ in range(load.clients)]
    told, used = drive("bench.load", [asdict(plan) for plan in plans], target.pid)
    measured = iter([Measured(**one) for one in told])
    of_load = [[next(measured) for _ in range(load.clients)] for load in loads]
    us_per_step = used / sum(one.all_steps for several in of_load for one in several) * 1e6
    return [
        _sample(target, load, several, used, us_per_step)
        for load, several in zip(loads, of_load, strict=True)
    ]


def drive(
    module: str, plans: Sequence[dict[str, Any]], server_pid: int
) -> tuple[list[dict[str, Any]], float]:
    """Start a client process for each plan and let them run at once.

    Returns:
        What each printed, and the processor seconds of the server meanwhile.
    """
    clients = [
        subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(plan)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for plan in plans
    ]
    try:
        for client in clients:
            _line(client.stdout)
        before = cpu_seconds(server_pid)
        for client in clients:
            assert client.stdin is not None
            client.stdin.write("go\n")
            client.stdin.flush()
        told = [json.loads(_line(client.stdout)) for client in clients]
        return told, cpu_seconds(server_pid) - before
    finally:
        for client in clients:
            client.kill()
            client.communicate()


def _plan(target: Target, load: Load) -> Plan:
    return Plan(
        port=target.port,
        kind=target.kind,
        streams=load.streams // load.clients,
        sessions=load.sessions,
        depth=load.depth,
        seconds=load.seconds,
        input_size=load.input_size,
        rate=load.rate / load.clients / load.sessions / load.steps if load.rate else None,
        steps=load.steps,
    )


def _sample(
    target: Target, load: Load, measured: Sequence[Measured], used: float, us_per_step: float
) -> Sample:
    latencies = sorted(took for one in measured for took in one.latencies_ms)
    steps = sum(one.all_steps for one in measured)
    rate = sum(one.steps for one in measured) / load.seconds
    return Sample(
        target=target.name,
        steps_per_second=rate,
        p50_ms=latencies[len(latencies) // 2],
        p99_ms=latencies[min(len(latencies) - 1, int(len(latencies) * 0.99))],
        server_cpu=used / steps * rate,
        server_cpu_us_per_step=us_per_step,
        client_cpu=[one.cpu_seconds / one.all_steps * one.steps / load.seconds for one in measured],
    )


def cpu_seconds(pid: int) -> float:
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
