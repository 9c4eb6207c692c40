"""The part of `carousel bench` that measures CUDA: it needs torch and the service at once, and a GPU."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from cli.bench_cuda_parts import Part
    from service.runtime import Provider


class Plan(NamedTuple):
    """What is measured, and where.

    On the CPU provider there is no float16, no graph is recorded though all that leads to it is run, and memory of a
    device is not measured.

    All of it is to take less than eight minutes of a fast GPU. A timing takes `seconds`, or two steps where they are
    longer: at 48 sizes, six ways and five runs that is 72 s, and there are eight loads on the service, of 3 s each. The
    rest is for opening and recording the models at each size, which nobody has timed on a GPU.
    """

    provider: "Provider" = "cuda"
    hidden: tuple[int, ...] = (128, 512, 1024)
    layers: tuple[int, ...] = (1, 2)
    batches: tuple[int, ...] = (1, 4, 16, 64, 256, 1024, 4096, 16384)
    sessions: tuple[int, int] = (1_000, 100_000)
    """Resident ones: what the time of a step is compared with, and where it is taken."""
    active: int = 1000
    """Those of them that step at once."""
    chunk_hidden: tuple[int, ...] = (128, 512)
    chunk_steps: tuple[int, ...] = (1, 4, 16, 64)
    clients: tuple[int, ...] = (1, 2, 4, 8)
    seconds: float = 0.05
    """Of one timing."""


def run(args: argparse.Namespace) -> int:
    """Measure on the GPU."""
    check_gpu()
    from service.log import configure_logging

    configure_logging("json")  # else what the service's parts have to say is among the tables
    report(Plan(sessions=(1_000, args.sessions)), args.runs, args.seconds, args.out)
    return 0


def check_gpu() -> None:
    """Hold that there is something to measure.

    Raises:
        CarouselError: onnxruntime or torch has no GPU; says which.
    """
    import torch

    from carousel.errors import CarouselError
    from service.arena_graphs import gather_graph
    from service.runtime import make_session

    make_session(gather_graph("float32", 1), "cuda", 1)
    if not torch.cuda.is_available():
        raise CarouselError(f"expected a torch that can use the GPU, got torch {torch.__version__}")


def report(plan: Plan, runs: int, seconds: float, out: Path) -> None:
    """Measure, print every part when it is done, write all measurements to a file and draw a picture beside it.

    The file is written again after each step of a part, so that what was measured stays. A part that fails is told and
    does not keep the others from being measured.

    Args:
        plan: What to measure.
        runs: Timings of each way.
        seconds: Of each load on the service.
        out: The JSON file.

    Raises:
        Exception: that of the first part that failed, after the last.
    """
    import tempfile

    from bench.report import machine
    from cli.bench_cuda_forms import device_of
    from cli.bench_cuda_parts import Bench, parts

    document: dict[str, Any] = {"machine": machine() | device_of(plan.provider)}
    title = ", ".join(f"{key} {value}" for key, value in document["machine"].items())
    print(title)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(plan, runs, seconds, Path(folder), out.with_suffix(".png"), title)
        found = [measure(name, part, document, out) for name, part in parts(bench).items()]
    failures = [failure for failure in found if failure is not None]
    if failures:
        raise failures[0]


def measure(name: str, part: "Part", document: dict[str, Any], out: Path) -> Exception | None:
    """Measure one part into the document and its file, and tell it; returns why it could not be, or not all of it."""
    import traceback

    from cli.progress import waiting

    told, failure = "", None
    try:
        with waiting(f"measuring: {name}") as tell:
            for found, text in part(tell):
                document[name], told = found, text
                write(document, out)
    except Exception as error:  # of whatever kind, it is raised after the last part
        failure = error
        # What the frames have on the device is in the way of the parts to come.
        traceback.clear_frames(error.__traceback__)
        reason = f"{type(error).__name__}: {error}"
        document.setdefault("failed", {})[name] = reason
        write(document, out)
        told = f"{told}\n\n{name}: failed: {reason}".strip()
    print(f"\n{told}", flush=True)
    return failure


def write(document: dict[str, Any], out: Path) -> None:
    """Write what was found so far."""
    from model.files import write_whole

    write_whole(out, json.dumps(document, indent=1).encode())
