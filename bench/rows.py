"""The rows of the performance table: what is run, against what, and the figure that comes out.

Design targets are ratios, each from pairs of measurements taken one after the other in one run.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort

from bench.run import Load, Sample, Target, echo, measure, service

CLIENTS = 2


class Aim(NamedTuple):
    """What a figure is to reach."""

    bound: float
    at_least: bool

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"


AtLeast = partial(Aim, at_least=True)
AtMost = partial(Aim, at_least=False)


@dataclass(frozen=True)
class Ratio:
    """One line of the table."""

    row: str
    figure: str
    against: str
    aim: Aim
    runs: list[float]
    samples: list[dict[str, Any]]
    """Every measurement behind it."""

    @property
    def median(self) -> float:
        """The figure to quote."""
        return median(self.runs)

    @property
    def reached(self) -> bool:
        """Whether the median is where it is to be."""
        return self.median >= self.aim.bound if self.aim.at_least else self.median <= self.aim.bound


@dataclass(frozen=True)
class Pair:
    """A measurement of the service and one of its baseline, taken one after the other."""

    ours: Sample
    base: Sample


def one_step_a_message(models: Path, runs: int, seconds: float) -> list[Ratio]:
    """64 sessions, one stream each, one step a message, against an echo of the same messages."""
    load = Load(CLIENTS, streams=64, sessions=1, depth=1, seconds=seconds, input_size=64)
    row, base = "64 sessions, 1 step a message", "bare grpc.aio echo"
    with service(models) as ours, echo("bytes") as theirs:
        full = _pairs(ours, theirs, load, runs)
        half_rate = min(pair.ours.steps_per_second for pair in full) / 2
        half = _pairs(ours, theirs, _paced(load, half_rate), runs)
    run_us = bare_run_seconds(models, batch=64, seconds=seconds) / 64 * 1e6
    return [
        _ratio(row, "rate", base, AtLeast(0.85), full, _rates),
        _ratio(
            row,
            "server CPU a step, less its share of a run",
            base,
            AtMost(1.5),
            full,
            lambda p: (p.ours.server_cpu_us_per_step - run_us) / p.base.server_cpu_us_per_step,
        ),
        _ratio(row, "p99 at half load", base, AtMost(1.5), half, lambda p: p.ours.p99_ms / p.base.p99_ms),
    ]


def columnar_frames(models: Path, runs: int, seconds: float) -> list[Ratio]:
    """One stream with frames of 64 sessions, against an echo that checks columns and blobs."""
    load = Load(1, streams=1, sessions=64, depth=4, seconds=seconds, input_size=64)
    with service(models) as ours, echo("columns") as theirs:
        pairs = _pairs(ours, theirs, load, runs)
    figure = _ratio(
        "frames of 64 sessions",
        "rate",
        "columnar echo",
        AtLeast(0.7),
        pairs,
        _rates,
    )
    return [figure]


def one_session(models: Path, runs: int, seconds: float) -> list[Ratio]:
    """One session, one step at a time, against an echo's round trip and one `session.run`."""
    load = Load(1, streams=1, sessions=1, depth=1, seconds=seconds, input_size=64)
    run_ms = bare_run_seconds(models, batch=1, seconds=seconds) * 1000
    with service(models) as ours, echo("bytes") as theirs:
        pairs = _pairs(ours, theirs, load, runs)
    figure = _ratio(
        "1 session, 1 step at a time",
        "p50",
        "echo + one session.run",
        AtMost(1.3),
        pairs,
        lambda p: p.ours.p50_ms / (p.base.p50_ms + run_ms),
    )
    return [figure]


def large_model(models: Path, runs: int, seconds: float) -> list[Ratio]:
    """A model whose run dominates, against a loop of `session.run` with ready-made states."""
    load = Load(1, streams=1, sessions=64, depth=2, seconds=seconds, input_size=1024)
    ratios, samples = [], []
    with service(models) as ours:
        for _ in range(runs):
            loop = 64 / bare_run_seconds(models, batch=64, seconds=seconds)
            sample = measure(ours, load)
            ratios.append(sample.steps_per_second / loop)
            samples.append({"ours": asdict(sample), "loop_steps_per_second": loop})
    return [Ratio("H=1024 L=2, 64 sessions", "rate", "loop of session.run", AtLeast(0.95), ratios, samples)]


def bare_run_seconds(models: Path, batch: int, seconds: float) -> float:
    """Median time of one `session.run` of the benchmark's model, one step, states ready-made, one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(models / "bench" / "1" / "model.onnx", options)
    shapes = {node.name: node.shape for node in session.get_inputs()}
    feeds = {
        "x": np.zeros((batch, 1, shapes["x"][-1]), np.float32),
        "lengths": np.ones(batch, np.int32),
        "state": np.zeros((batch, shapes["state"][-1]), np.float32),
    }
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        session.run(None, feeds)
        times.append(time.perf_counter() - started)
    return median(times)


def _pairs(ours: Target, theirs: Target, load: Load, runs: int) -> list[Pair]:
    return [Pair(measure(ours, load), measure(theirs, load)) for _ in range(runs)]


def _paced(load: Load, rate: float) -> Load:
    return Load(**{**asdict(load), "rate": rate})


def _rates(pair: Pair) -> float:
    return pair.ours.steps_per_second / pair.base.steps_per_second


def _ratio(
    row: str, figure: str, against: str, aim: Aim, pairs: list[Pair], of: Callable[[Pair], float]
) -> Ratio:
    return Ratio(row, figure, against, aim, [of(pair) for pair in pairs], [asdict(pair) for pair in pairs])
