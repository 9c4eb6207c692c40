"""One measurement of one server: client processes beside it, what each process used, and whether the answers were right."""

import itertools
import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from bench.peers.check import Verdict
from bench.peers.load import Measured, Plan
from bench.peers.processes import cpu_seconds
from bench.run import Target
from carousel.errors import CarouselError

_numbers = itertools.count(1, 1 << 20)
"""Every client numbers its streams from one of these, so that none takes up what another left."""


@dataclass(frozen=True)
class Load:
    """What all clients of a measurement do together."""

    clients: int
    streams: int
    """Of all clients."""
    sessions: int
    """A stream; a message carries one step of each."""
    seconds: float
    input_size: int


@dataclass(frozen=True)
class Sample:
    """One measurement of one server."""

    target: str
    steps_per_second: float
    p50_ms: float
    p99_ms: float
    server_cpu: float
    """Share of one core, all processes of the server."""
    server_processes: dict[str, float]
    """The same for each that did anything, by name and number."""
    client_cpu: list[float]
    """Share of one core, each client."""
    checked: int
    """Steps whose numbers were held against a direct run of the model; all there were."""
    wrong: int
    """Of them, further off than the tolerance."""
    other_bits: int
    """Of them, not bit for bit the same."""


def measure(target: Target, load: Load, model: Path) -> Sample:
    """Run the clients against a server, all at once, and put together what they measured.

    Raises:
        CarouselError: A client ended before it had measured.
    """
    with ExitStack() as stack:
        clients = [
            stack.enter_context(_Client(_plan(target, load, model, number), target.name))
            for number in range(load.clients)
        ]
        for client in clients:
            client.heard()  # ready
        before = cpu_seconds(target.pid)
        for client in clients:
            client.tell()
        for client in clients:
            client.heard()  # ran, and checks now
        after = cpu_seconds(target.pid)
        measured = [Measured(**json.loads(client.heard())) for client in clients]
    used = {who: seconds - before.get(who, 0.0) for who, seconds in after.items()}
    return _sample(target, load, measured, used)


def _plan(target: Target, load: Load, model: Path, client: int) -> Plan:
    streams = load.streams // load.clients
    return Plan(
        wire=target.kind,
        port=target.port,
        streams=streams,
        sessions=load.sessions,
        first_session=client * streams * load.sessions,
        first_number=next(_numbers),
        seconds=load.seconds,
        model=str(model),
        input_size=load.input_size,
    )


def _sample(target: Target, load: Load, measured: list[Measured], used: dict[str, float]) -> Sample:
    latencies = sorted(took for one in measured for took in one.latencies_ms)
    steps = sum(one.all_steps for one in measured)
    rate = sum(one.steps for one in measured) / load.seconds
    verdict = Verdict(*(sum(column) for column in zip(*(one.verdict for one in measured), strict=True)))
    return Sample(
        target=target.name,
        steps_per_second=rate,
        p50_ms=latencies[len(latencies) // 2],
        p99_ms=latencies[min(len(latencies) - 1, int(len(latencies) * 0.99))],
        server_cpu=sum(used.values()) / steps * rate,
        server_processes={who: spent / steps * rate for who, spent in used.items() if spent},
        client_cpu=[one.cpu_seconds / one.all_steps * one.steps / load.seconds for one in measured],
        **verdict._asdict(),
    )


class _Client:
    """A client process, and the lines that are exchanged with it."""

    def __init__(self, plan: Plan, server: str) -> None:
        command = [sys.executable, "-m", "bench.peers.load", json.dumps(asdict(plan))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._server = server

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def tell(self) -> None:
        """Let it run."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def heard(self) -> str:
        """Its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise CarouselError(
                f"a client of {self._server} ended before it had measured; its own words are above"
            )
        return line
