"""What `carousel bench cuda` finds out, and how it is told. The measuring itself needs torch: see cli/bench_cuda.py."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.run import Load, Sample, measure, service

SESSIONS = 64
"""Of each stream to the service."""
STREAMS = 4
"""Of each client."""


@dataclass(frozen=True)
class Speed:
    """Time of one step of a whole batch, in seconds, for each way to make it; the medians of several measurements."""

    hidden: int
    layers: int
    batch: int
    ours: list[float]
    """Through the backend: inputs and rows from the host, answers and checks back to it, states on the device."""
    resident: list[float]
    """`torch.nn.LSTM` with inputs, states and answers on the device."""
    copied: list[float]
    """`torch.nn.LSTM` with states on the device, inputs from the host and answers back to it."""

    @property
    def rate(self) -> float:
        """Steps of sessions a second."""
        return self.batch / median(self.ours)

    @property
    def ratio(self) -> float:
        """Of our rate to the loop's whose inputs and answers stay on the device."""
        return median(self.resident) / median(self.ours)

    @property
    def ratio_to_copied(self) -> float:
        """Of our rate to the loop's that copies what we copy."""
        return median(self.copied) / median(self.ours)


def copies_in(profile: Path) -> int:
    """How many copies between host and device a profile of ONNX Runtime shows inside its runs.

    Its provider marks them as nodes of its own, MemcpyToHost and MemcpyFromHost. What the backend copies before and
    after a run, inputs and answers, is not among them.
    """
    events = json.loads(profile.read_text())
    nodes = (event.get("args", {}).get("op_name", "") for event in events if event.get("cat") == "Node")
    return sum(name.startswith("Memcpy") for name in nodes)


def runs_in(profile: Path) -> int:
    """How many runs a profile of ONNX Runtime shows."""
    return sum(event.get("name") == "model_run" for event in json.loads(profile.read_text()))


def through_the_service(
    models: Path, clients: Sequence[int], seconds: float, input_size: int, *options: str
) -> list[Sample]:
    """Frames of 64 sessions to `carousel serve`, with more and more client processes."""
    with service(models, *options) as ours:
        loads = [Load(count, STREAMS * count, SESSIONS, 4, seconds, input_size) for count in clients]
        return [measure(ours, load) for load in loads]


def speed_table(speeds: Sequence[Speed]) -> str:
    """A Markdown table, a line each."""
    lines = [
        "| H | L | B | steps/s | of torch, all resident | of torch, copying as we do |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.hidden} | {one.layers} | {one.batch} | {one.rate:.0f} | {one.ratio:.2f} | {one.ratio_to_copied:.2f} |"
        for one in speeds
    ]
    return "\n".join(lines)


def service_table(clients: Sequence[int], samples: Sequence[Sample]) -> str:
    """A Markdown table: the rate of each number of clients, and how it grows."""
    lines = ["| clients | steps/s | of one client's | p99 ms | server CPU |", "|---|---|---|---|---|"]
    for count, one in zip(clients, samples, strict=True):
        grown = one.steps_per_second / samples[0].steps_per_second
        lines.append(
            f"| {count} | {one.steps_per_second:.0f} | {grown:.2f} | {one.p99_ms:.1f} | {one.server_cpu:.0%} |"
        )
    return "\n".join(lines)
