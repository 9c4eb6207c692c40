"""What `carousel bench cuda` finds out, and how it is told. The measuring itself needs torch: see cli/bench_cuda.py."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.run import Load, Sample, measure, service

SESSIONS = 64
"""Of each stream to the service, and of the chunks."""
STREAMS = 4
"""Of each client."""
HALF = "fp16"
"""The form that computes in float16; the others do in float32, as the loops of torch."""
AIM, AIM_BATCH = 0.8, 256
"""What our rate is to be of the loop's with everything on the device, and from which batch on."""


@dataclass(frozen=True)
class Speed:
    """Times of one step of a whole batch, in seconds: several measurements of each way to make it."""

    hidden: int
    layers: int
    batch: int
    ours: dict[str, list[float]]
    """Through the backend, for each form: inputs and rows from the host, answers and checks back to it, states on the
    device."""
    resident: list[float]
    """`torch.nn.LSTM` with inputs, states and answers on the device."""
    copied: list[float]
    """`torch.nn.LSTM` with states on the device, inputs from the host and answers back to it."""

    @property
    def fastest(self) -> str:
        """The form of the shortest step, of those in float32."""
        return min((form for form in self.ours if form != HALF), key=lambda form: median(self.ours[form]))

    @property
    def rate(self) -> float:
        """Steps of sessions a second, in the fastest form."""
        return self.batch / median(self.ours[self.fastest])

    def ratio(self, form: str) -> float:
        """Of a form's rate to the loop's whose inputs and answers stay on the device."""
        return median(self.resident) / median(self.ours[form])

    @property
    def ratio_to_copied(self) -> float:
        """Of the fastest form's rate to the loop's that copies what we copy."""
        return median(self.copied) / median(self.ours[self.fastest])


@dataclass(frozen=True)
class Chunk:
    """Times of a chunk of 64 sessions, in seconds: several measurements of each form."""

    hidden: int
    steps: int
    fused: list[float]
    """All steps in one run."""
    recorded: list[float]
    """A run each step."""

    @property
    def ratio(self) -> float:
        """Of the recorded form's time to the fused one's."""
        return median(self.recorded) / median(self.fused)


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
    """A Markdown table, a line each: the fastest form's rate, and the ratio of every form to torch's loop."""
    forms = list(speeds[0].ours)
    heading = ["H", "L", "B", "steps/s", "fastest", *(f"{form}, of torch resident" for form in forms)]
    rows = [[*heading, "fastest, of torch copying as we do"]]
    for one in speeds:
        sizes = [str(size) for size in (one.hidden, one.layers, one.batch)]
        ratios = [f"{ratio:.2f}" for ratio in (*map(one.ratio, forms), one.ratio_to_copied)]
        rows.append([*sizes, f"{one.rate:.0f}", one.fastest, *ratios])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def aim_line(speeds: Sequence[Speed]) -> str:
    """How many of the large batches are as fast as they are to be, and the slowest of them."""
    large = [one for one in speeds if one.batch >= AIM_BATCH]
    if not large:
        return f"No batch of {AIM_BATCH} or more was measured."
    reached = sum(one.ratio(one.fastest) >= AIM for one in large)
    worst = min(large, key=lambda one: one.ratio(one.fastest))
    return (
        f"{reached} of {len(large)} rows with B >= {AIM_BATCH} reach {AIM} of torch.nn.LSTM with everything resident, "
        f"in the fastest form of float32; the worst is {worst.ratio(worst.fastest):.2f}, "
        f"at H={worst.hidden} L={worst.layers} B={worst.batch}."
    )


def chunk_table(chunks: Sequence[Chunk]) -> str:
    """A Markdown table, a line each: which form is faster at which length."""
    lines = ["| H | T | fused ms | recorded ms | recorded of fused | faster |", "|---|---|---|---|---|---|"]
    for one in chunks:
        times = (f"{median(times) * 1000:.3f}" for times in (one.fused, one.recorded))
        faster = "recorded" if one.ratio < 1 else "fused"
        lines.append(f"| {one.hidden} | {one.steps} | {' | '.join(times)} | {one.ratio:.2f} | {faster} |")
    return "\n".join(lines)


def memory_line(sessions: int, row_bytes: int, device_bytes: int | None) -> str:
    """What the arena of many sessions takes of the device, against its rows."""
    rows = f"The rows of {sessions} resident sessions are {row_bytes / 1e6:.1f} MB"
    if device_bytes is None:
        return f"{rows}; memory of the device was not measured, there is none."
    return f"{rows}; the device has {device_bytes / 1e6:.1f} MB less, {device_bytes / row_bytes:.2f} of that."


def service_table(clients: Sequence[int], samples: Sequence[Sample]) -> str:
    """A Markdown table: the rate of each number of clients, and how it grows."""
    lines = ["| clients | steps/s | of one client's | p99 ms | server CPU |", "|---|---|---|---|---|"]
    for count, one in zip(clients, samples, strict=True):
        grown = one.steps_per_second / samples[0].steps_per_second
        lines.append(
            f"| {count} | {one.steps_per_second:.0f} | {grown:.2f} | {one.p99_ms:.1f} | {one.server_cpu:.0%} |"
        )
    return "\n".join(lines)
