"""The part of `carousel bench` that measures CUDA: it needs torch and the service at once, and a GPU."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from bench.cuda import Speed
    from bench.run import Sample
    from service.backend import Backend
    from service.runtime import Provider

STEPS = 20
"""Steps that are timed together."""
INPUT = 64
"""I of the model that is served whole; of the others, I is H."""


class Plan(NamedTuple):
    """What is measured, and where."""

    provider: "Provider" = "cuda"
    hidden: tuple[int, ...] = (128, 512, 1024)
    layers: tuple[int, ...] = (1, 2)
    batches: tuple[int, ...] = (1, 4, 16, 64, 256, 1024, 4096, 16384)
    sessions: tuple[int, int] = (1_000, 100_000)
    """Resident ones: what the time of a step is compared with, and where it is taken."""
    active: int = 1000
    """Those of them that step at once."""
    clients: tuple[int, ...] = (1, 2, 4, 8)


def run(args: argparse.Namespace) -> int:
    """Measure on the GPU."""
    check_gpu()
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


class Found(NamedTuple):
    """What was measured."""

    speeds: "list[Speed]"
    copies: float
    """Between host and device, inside a run."""
    resident: list[float]
    """Time of a step among many resident sessions to that among few."""
    service: "list[Sample]"
    """The whole service, for each number of clients."""


def report(plan: Plan, runs: int, seconds: float, out: Path) -> None:
    """Measure, print two tables, write every measurement to a file and draw a picture beside it."""
    from bench.cuda import service_table, speed_table
    from bench.plot_cuda import draw_speeds
    from bench.report import machine
    from model.files import write_whole

    found = measure(plan, runs, seconds)
    document: dict[str, Any] = {
        "machine": machine() | {"device": device_name(plan.provider)},
        "speeds": [asdict(one) for one in found.speeds],
        "copies_a_run": found.copies,
        "resident": {"sessions": plan.sessions, "time_ratios": found.resident},
        "service": [asdict(sample) for sample in found.service],
    }
    write_whole(out, json.dumps(document, indent=1).encode())
    told = ", ".join(f"{key} {value}" for key, value in document["machine"].items())
    draw_speeds(found.speeds, told, out.with_suffix(".png"))
    few, many = plan.sessions
    print(told, speed_table(found.speeds), sep="\n\n", end="\n\n")
    print(f"Copies between host and device inside a run: {found.copies:g}.")
    print(f"A step with {many} resident sessions takes {median(found.resident):.2f} of one with {few}.")
    print("", service_table(plan.clients, found.service), sep="\n")


def measure(plan: Plan, runs: int, seconds: float) -> Found:
    """Everything, one after the other."""
    import tempfile

    from bench.cuda import through_the_service
    from cli.progress import waiting

    with tempfile.TemporaryDirectory() as folder, waiting("measuring") as tell:
        speeds = []
        for hidden in plan.hidden:
            for layers in plan.layers:
                file = write_model(Path(folder, f"{hidden}-{layers}"), hidden, hidden, layers)
                for batch in plan.batches:
                    tell(f"H={hidden} L={layers} B={batch}")
                    speeds.append(speed(plan, file, hidden, layers, batch, runs))
        tell("copies inside a run")
        file = write_model(Path(folder, "whole"), INPUT, plan.hidden[0], 1)
        copies = copies_a_run(plan, file)
        tell("resident sessions")
        resident = resident_ratio(plan, file, runs)
        tell("the whole service")
        options = ("--provider", plan.provider, "--max-batch", "1024")
        samples = through_the_service(Path(folder, "whole"), plan.clients, seconds, INPUT, *options)
    return Found(speeds, copies, resident, samples)


def write_model(repository: Path, inputs: int, hidden: int, layers: int) -> Path:
    """An untrained LSTM in the arena form."""
    from export.bare import bare_model
    from export.options import Options
    from model.cells.lstm import LSTM

    cells = [LSTM(hidden if layer else inputs, hidden) for layer in range(layers)]
    file = repository / "bench" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(bare_model(cells, Options(target="cuda")).SerializeToString())
    return file


def speed(plan: Plan, file: Path, hidden: int, layers: int, batch: int, runs: int) -> "Speed":
    """Time one size every way, each way in turn."""
    from bench.cuda import Speed

    ways = {
        "ours": our_step(plan.provider, file, batch),
        "resident": torch_step(plan.provider, hidden, layers, batch, copied=False),
        "copied": torch_step(plan.provider, hidden, layers, batch, copied=True),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, step in ways.items():
            found[name].append(seconds_of(step))
    return Speed(hidden, layers, batch, **found)


def our_step(provider: "Provider", file: Path, batch: int) -> Callable[[], object]:
    """One step of a batch through the backend: each session reads one of its two rows and writes the other."""
    import numpy as np

    from service.arena_backend import ArenaBackend, power_of_two
    from service.arena_store import ArenaStore
    from service.opening import open_model

    session, contract = open_model(file, provider, 1)
    backend = ArenaBackend(
        session, contract, ArenaStore(contract, 1 + 2 * batch, power_of_two(batch), provider)
    )
    return stepping(
        backend, np.arange(1, 1 + batch), np.arange(1 + batch, 1 + 2 * batch), contract.inputs[0].size
    )


def stepping(backend: "Backend", rows: Any, others: Any, size: int) -> Callable[[], object]:
    """A step of the same sessions each time it is called."""
    import numpy as np

    from service.backend import Run

    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((len(rows), 1, size), np.float32)
    lengths, current = np.ones(len(rows), np.int32), [rows, others]
    for part in current:
        backend.write(part, np.zeros((len(rows), backend.read(rows[:1]).shape[1]), np.float32))

    def step() -> object:
        result = backend.run(Run(current[0], current[1], lengths, (inputs,)))
        current.reverse()
        return result

    return step


def torch_step(
    provider: "Provider", hidden: int, layers: int, batch: int, *, copied: bool
) -> Callable[[], object]:
    """One step of `torch.nn.LSTM` with resident states, without TF32, finished when it returns."""
    import torch

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    device = torch.device(provider)
    lstm = torch.nn.LSTM(hidden, hidden, layers).to(device).eval()
    x_host = torch.randn(1, batch, hidden)
    x_device, state = x_host.to(device), None

    @torch.inference_mode()
    def step() -> object:
        nonlocal state
        y, state = lstm(x_host.to(device) if copied else x_device, state)
        if copied:
            return y.cpu()
        if provider == "cuda":
            torch.cuda.synchronize()
        return y

    return step


def seconds_of(step: Callable[[], object]) -> float:
    """Time of one step, from several after a few that are not timed."""
    import time

    for _ in range(3):
        step()
    started = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - started) / STEPS


def copies_a_run(plan: Plan, file: Path) -> float:
    """Copies between host and device inside a run, from a profile of ONNX Runtime."""
    import numpy as np

    from bench.cuda import copies_in, runs_in
    from service.arena_backend import ArenaBackend
    from service.arena_store import ArenaStore
    from service.opening import open_model
    from service.runtime import CudaOptions, cuda_settings, load_runtime

    ort, (_, contract) = load_runtime(), open_model(file, plan.provider, 1)
    options = ort.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(file.parent / "profile")
    provider = (
        ("CUDAExecutionProvider", cuda_settings(CudaOptions()))
        if plan.provider == "cuda"
        else "CPUExecutionProvider"
    )
    session = ort.InferenceSession(file, options, providers=[provider])
    backend = ArenaBackend(session, contract, ArenaStore(contract, 5, 2, plan.provider))
    step = stepping(backend, np.array([1, 2]), np.array([3, 4]), contract.inputs[0].size)
    for _ in range(STEPS):
        step()
    profile = Path(session.end_profiling())
    return copies_in(profile) / runs_in(profile)


def resident_ratio(plan: Plan, file: Path, runs: int) -> list[float]:
    """Time of a step among many resident sessions to that among few, as many of them active."""
    import numpy as np

    from service.arena_backend import ArenaBackend, power_of_two
    from service.arena_store import ArenaStore
    from service.opening import open_model

    session, contract = open_model(file, plan.provider, 1)
    rng, steps = np.random.default_rng(0), []
    for sessions in plan.sessions:
        store = ArenaStore(contract, 1 + 2 * sessions, power_of_two(plan.active), plan.provider)
        rows, others = np.split(1 + rng.permutation(2 * sessions)[: 2 * plan.active], 2)
        backend = ArenaBackend(session, contract, store)
        steps.append(stepping(backend, rows, others, contract.inputs[0].size))
    return [seconds_of(steps[1]) / seconds_of(steps[0]) for _ in range(runs)]


def device_name(provider: "Provider") -> str:
    """What the figures were taken on."""
    import torch

    return torch.cuda.get_device_name() if provider == "cuda" else provider
