"""Sequences of mixed length that arrive at random: continuous batching against padding whole requests.

The comparison is that of BatchMaker (Gao, Yu, Wu & Li, "Low Latency RNN Inference with Cellular Batching", EuroSys
2018): there, too, a new sequence joins those that are running, and a finished one leaves them.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.rows import Aim, AtLeast, AtMost, Ratio
from bench.run import Target, drive, padded, service
from bench.sequences import LONGEST, SHORTEST, Measured, Plan

BASE = "padding to the longest that waits"
MOST = 64
"""Sequences of one run, on both sides. The baseline is slower with more and with fewer."""
STREAMS = 16
BUSY, READY = 2 * MOST, 4 * MOST
"""Sessions at full load, where a full batch waits while another runs; and at part load, where one is always free."""
PART = 0.7
"""Of the baseline's full load, at which latencies are taken."""


@dataclass(frozen=True)
class Sample:
    """One measurement of one server."""

    target: str
    sequences_per_second: float
    steps_per_second: float
    """Without padding."""
    p50_ms: float
    p90_ms: float
    server_cpu: float
    """Share of one core."""
    server_cpu_us_per_step: float
    client_cpu: list[float]
    """Share of one core."""
    checked: int


class Pair(NamedTuple):
    """A measurement of the service and one of its baseline, of the same sequences."""

    ours: Sample
    base: Sample


def mixed_lengths(models: Path, model: str, runs: int, seconds: float) -> list[Ratio]:
    """Throughput when there is always more to do, and latency when the baseline is at 70 %; `model` names the shape."""
    with service(models, "--max-batch", str(MOST)) as ours, padded(models, MOST) as base:

        def pairs(sessions: int, rate: float | None) -> list[Pair]:
            return [
                Pair(*(_measure(target, models, sessions, seconds, seed, rate) for target in (ours, base)))
                for seed in range(runs)
            ]

        full = pairs(BUSY, None)
        part = pairs(READY, PART * median(pair.base.sequences_per_second for pair in full))
    row = f"{model}, sequences of {SHORTEST} to {LONGEST} steps"
    p90 = f"p90 at {PART:.0%} of the baseline's rate"
    return [
        _ratio(row, "rate", AtLeast(1.25), full, lambda sample: sample.steps_per_second),
        _ratio(row, p90, AtMost(0.5), part, lambda sample: sample.p90_ms),
    ]


def _ratio(row: str, figure: str, aim: Aim, pairs: Sequence[Pair], of: Callable[[Sample], float]) -> Ratio:
    return Ratio(
        row=row,
        figure=figure,
        against=BASE,
        aim=aim,
        runs=[of(pair.ours) / of(pair.base) for pair in pairs],
        samples=[{"ours": asdict(pair.ours), "base": asdict(pair.base)} for pair in pairs],
    )


def _measure(
    target: Target, models: Path, sessions: int, seconds: float, seed: int, rate: float | None
) -> Sample:
    plan = Plan(
        port=target.port,
        kind=target.kind,
        streams=STREAMS,
        sessions=sessions // STREAMS,
        seconds=seconds,
        model=str(models / "bench" / "1" / "model.onnx"),
        seed=seed,
        rate=rate,
    )
    (told,), used = drive("bench.sequences", [asdict(plan)], target.pid)
    measured = Measured(**told)
    counted = measured.steps / measured.all_steps / seconds
    return Sample(
        target=target.name,
        sequences_per_second=measured.sequences / seconds,
        steps_per_second=measured.steps / seconds,
        p50_ms=_quantile(measured, 0.5),
        p90_ms=_quantile(measured, 0.9),
        server_cpu=used * counted,
        server_cpu_us_per_step=used / measured.all_steps * 1e6,
        client_cpu=[measured.cpu_seconds * counted],
        checked=measured.checked,
    )


def _quantile(measured: Measured, part: float) -> float:
    return measured.latencies_ms[round(part * (len(measured.latencies_ms) - 1))]
