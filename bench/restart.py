"""A planned restart with many sessions: what it takes longer than one without any, against NumPy and the same bytes.

One file that is written, synced and read takes six times as long now and then, whoever does it: where memory is new to
the machine, and where the disk has other work. So NumPy does it `BASELINES` times between any two restarts, and each
restart is held against the median of those right before and right after it, the lower one of an even number. The figure
is the median of twice as many restarts as other rows have runs.
"""

import asyncio
import os
import resource
import subprocess
import time
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from bench.many import Sessions
from bench.rows import AtMost, Ratio
from bench.run import cpu_seconds, serve_command, serving_port
from carousel.errors import CarouselError

DRAIN_FILE = "sessions.drain"
BASELINES = 3


class Restart(NamedTuple):
    """How long a restart took."""

    stop_s: float
    """From the signal to the end of the process."""
    start_s: float
    """From then until it serves again."""
    cpu_s: float
    """Processor seconds of both."""
    file_bytes: int
    """What was on disk between them."""


@dataclass(frozen=True)
class Sample:
    """One measurement."""

    target: str
    seconds: float
    out_s: float
    """Of them, until everything was on disk."""
    server_cpu: float
    """Share of one core."""
    file_bytes: int
    client_cpu: tuple[float, ...] = ()


class Server:
    """`carousel serve` with a folder for its sessions, as a process.

    Args:
        models: The repository.
        folder: For the sessions.
        sessions: As many as it takes.
    """

    def __init__(self, models: Path, folder: Path, sessions: int) -> None:
        self._file = folder / DRAIN_FILE
        self._command = serve_command(models, "--state-dir", str(folder), "--max-sessions", str(sessions))

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def restart(self) -> Restart:
        """Ask it to end, wait until it has, and start it again."""
        running, ended = cpu_seconds(self._process.pid), _cpu_of_ended()
        began = time.perf_counter()
        self._process.terminate()
        _, said = self._process.communicate()
        stopped = time.perf_counter()
        if self._process.returncode:
            raise CarouselError(f"the server ended with {self._process.returncode}: {said}")
        cpu_s, file_bytes = _cpu_of_ended() - ended - running, self._file.stat().st_size
        again = time.perf_counter()
        self._start()
        start_s = time.perf_counter() - again
        return Restart(stopped - began, start_s, cpu_s + cpu_seconds(self._process.pid), file_bytes)

    def _start(self) -> None:
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True)
        self.port = serving_port(self._process)


def drain_and_restart(models: Path, runs: int, sessions: int) -> list[Ratio]:
    """Restart a server with sessions that have made a step, and one without; every session must go on where it was."""
    pairs = []
    with (
        TemporaryDirectory() as full_folder,
        TemporaryDirectory() as empty_folder,
        Server(models, Path(full_folder), sessions) as full,
        Server(models, Path(empty_folder), sessions) as empty,
    ):
        many = Sessions(models, sessions)
        asyncio.run(many.open_and_step(full.port))
        before: list[Sample] = []
        for _ in range(2 * runs):
            restart = full.restart()
            after = _baselines(Path(full_folder), restart.file_bytes)
            pairs.append((_longer(restart, empty.restart()), before + after))
            before = after
        asyncio.run(many.check(full.port))
    return [
        Ratio(
            row=f"drain and restart with {sessions} sessions",
            figure="time beyond that without sessions",
            against="np.save, fsync, np.load",
            aim=AtMost(3),
            runs=[ours.seconds / _middle(bases).seconds for ours, bases in pairs],
            samples=[
                {
                    "ours": asdict(ours),
                    "base": asdict(_middle(bases)),
                    "bases": [asdict(one) for one in bases],
                }
                for ours, bases in pairs
            ],
        )
    ]


def _longer(full: Restart, empty: Restart) -> Sample:
    out_s = full.stop_s - empty.stop_s
    return Sample(
        target="carousel",
        seconds=out_s + full.start_s - empty.start_s,
        out_s=out_s,
        server_cpu=full.cpu_s / (full.stop_s + full.start_s),
        file_bytes=full.file_bytes,
    )


def _middle(bases: list[Sample]) -> Sample:
    return sorted(bases, key=attrgetter("seconds"))[(len(bases) - 1) // 2]


def _baselines(folder: Path, file_bytes: int) -> list[Sample]:
    states = np.frombuffer(np.random.default_rng(0).bytes(file_bytes), np.uint8)
    return [_numpy(folder / "baseline.npy", states) for _ in range(BASELINES)]


def _numpy(path: Path, states: NDArray[np.uint8]) -> Sample:
    cpu, began = time.process_time(), time.perf_counter()
    with path.open("wb") as file:
        np.save(file, states)
        file.flush()
        os.fsync(file.fileno())
    saved = time.perf_counter()
    if not np.array_equal(np.load(path)[-1:], states[-1:]):
        raise CarouselError(f"{path}: other bytes than were written")
    seconds = time.perf_counter() - began
    cpu = time.process_time() - cpu
    path.unlink()
    return Sample("numpy", seconds, saved - began, cpu / seconds, states.nbytes)


def _cpu_of_ended() -> float:
    """Processor seconds of all processes that ended and that we started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
