"""The parts of `carousel bench cuda`, each of which yields what it has found so far, for the file and for people."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.cuda import (
    SESSIONS,
    Chunk,
    Speed,
    aim_line,
    chunk_table,
    copies_in,
    memory_line,
    runs_in,
    service_table,
    speed_table,
    through_the_service,
)
from bench.plot_cuda import draw_speeds
from cli.bench_cuda_forms import (
    FORMS,
    Step,
    forms_on,
    free_bytes,
    open_form,
    our_step,
    stepping,
    store_of,
    time_in_turn,
    torch_step,
    write_model,
)
from cli.progress import Tell
from service.placement import operators_of
from service.runtime import NOT_APPLIED, CudaOptions, cuda_settings, load_runtime

if TYPE_CHECKING:
    from cli.bench_cuda import Plan

INPUT = 64
"""I of the model of the parts that are not about speed; of the others, I is H."""
PROFILED_RUNS = 20

Findings = Iterator[tuple[Any, str]]
"""What belongs in the file, and the same in Markdown; each replaces the one before."""
Part = Callable[[Tell], Findings]


@dataclass(frozen=True)
class Bench:
    """What all parts know."""

    plan: "Plan"
    runs: int
    """Timings of each way."""
    seconds: float
    """Of each load on the service."""
    folder: Path
    """For models and profiles."""
    picture: Path
    title: str
    """Of the picture."""
    working: list[str] = field(default_factory=list)
    """The forms that have made a step here."""

    def model(self, name: str) -> Path:
        """The file of the smallest model, in a form."""
        return write_model(self.folder, name, INPUT, self.plan.hidden[0], 1)


def parts(bench: Bench) -> dict[str, Part]:
    """Every part by its name, in order: first what is known soon.

    The memory comes before the speeds, which leave the runtime with memory of its own that rows would be put into.
    """
    return {
        **{f"form {name}": partial(form, bench, name) for name in forms_on(bench.plan.provider)},
        "copies a run": partial(copies_a_run, bench),
        "resident": partial(resident, bench),
        "chunks": partial(chunks, bench),
        "speeds": partial(speeds, bench),
        **{f"service {name}": partial(service, bench, name) for name in ("fused", "recorded")},
    }


def form(bench: Bench, name: str, _tell: Tell) -> Findings:
    """Whether a form can be opened, recorded and run at all; those that cannot are left out of the speeds."""
    provider = bench.plan.provider
    opened = open_form(provider, name, bench.model(name))
    our_step(opened, store_of(provider, opened.contract, 2, 2), 2)()
    bench.working.append(name)
    on_cpu = operators_of(opened.session, "CPUExecutionProvider") if provider == "cuda" else []
    yield (
        {"operators_on_cpu": on_cpu},
        f"Form {name}: operators that were put on the CPU: {', '.join(on_cpu) or 'none'}.",
    )


def copies_a_run(bench: Bench, tell: Tell) -> Findings:
    """Copies between host and device inside a run, from profiles of ONNX Runtime."""
    found = {}
    for name in ("fused", "single-step"):
        tell(name)
        found[name] = _copies_of(bench, name)
        told = ", ".join(f"{form} {copies:g}" for form, copies in found.items())
        yield found, f"Copies between host and device inside a run: {told}."


def _copies_of(bench: Bench, name: str) -> float:
    """Of one form."""
    provider, file = bench.plan.provider, bench.model(name)
    ort, opened = load_runtime(), open_form(provider, name, file)
    options = ort.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(bench.folder / name)
    where = (
        ("CUDAExecutionProvider", cuda_settings(CudaOptions()))
        if provider == "cuda"
        else "CPUExecutionProvider"
    )
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    session = ort.InferenceSession(file, options, providers=[where], disabled_optimizers=NOT_APPLIED)
    step = our_step(opened._replace(session=session), store_of(provider, opened.contract, 2, 2), 2)
    for _ in range(PROFILED_RUNS):
        step()
    profile = Path(session.end_profiling())
    return copies_in(profile) / runs_in(profile)


def resident(bench: Bench, _tell: Tell) -> Findings:
    """The time of a step among many resident sessions and among few, and the memory that the many take."""
    plan = bench.plan
    opened = open_form(plan.provider, "fused", bench.model("fused"))
    rng, ways, row_bytes, taken = np.random.default_rng(0), {}, 0, None
    for name, sessions in zip(("few", "many"), plan.sessions, strict=True):
        before = free_bytes(plan.provider)
        store = store_of(plan.provider, opened.contract, sessions, plan.active)
        after = free_bytes(plan.provider)
        taken = None if before is None or after is None else before - after
        rows, size = store.arena.shape()
        row_bytes = rows * size * 4  # float32 in every form
        own = np.split(1 + rng.permutation(2 * sessions)[: 2 * plan.active], 2)
        chunk = rng.standard_normal((len(own[0]), 1, INPUT), np.float32)
        ways[name] = stepping(opened, store, own, [chunk])
    times = time_in_turn(ways, bench.runs, plan.seconds)
    ratios = [many / few for many, few in zip(times["many"], times["few"], strict=True)]
    told = f"A step with {plan.sessions[1]} resident sessions takes {median(ratios):.2f} of one with {plan.sessions[0]}."
    found = {"sessions": plan.sessions, "time_ratios": ratios, "row_bytes": row_bytes, "device_bytes": taken}
    yield found, f"{told}\n{memory_line(plan.sessions[1], row_bytes, taken)}"


def chunks(bench: Bench, tell: Tell) -> Findings:
    """The time of chunks of 64 sessions, all steps in one run and a recorded run each."""
    plan, found = bench.plan, list[Chunk]()
    for hidden, steps in product(plan.chunk_hidden, plan.chunk_steps):
        tell(f"H={hidden} T={steps}")
        ways = _ours(bench, ("fused", "recorded"), hidden, 1, SESSIONS, steps)
        found.append(Chunk(hidden, steps, **time_in_turn(ways, bench.runs, plan.seconds)))
        del ways  # before the next ones are made
        title = f"Chunks of {SESSIONS} sessions: fused in one run, recorded in T runs"
        yield [asdict(one) for one in found], f"{title}\n\n{chunk_table(found)}"


def speeds(bench: Bench, tell: Tell) -> Findings:
    """The time of a step of every form that works, against torch's."""
    plan, found = bench.plan, list[Speed]()
    for hidden, layers, batch in product(plan.hidden, plan.layers, plan.batches):
        tell(f"H={hidden} L={layers} B={batch}")
        found.append(_speed(bench, hidden, layers, batch))
        yield [asdict(one) for one in found], f"{speed_table(found)}\n\n{aim_line(found)}"
    draw_speeds(found, bench.title, bench.picture)


def _speed(bench: Bench, hidden: int, layers: int, batch: int) -> Speed:
    """Of one size; what it has on the device goes with it."""
    plan = bench.plan
    ways = _ours(bench, bench.working, hidden, layers, batch)
    ways["resident"] = torch_step(plan.provider, hidden, layers, batch, copied=False)
    ways["copied"] = torch_step(plan.provider, hidden, layers, batch, copied=True)
    times = time_in_turn(ways, bench.runs, plan.seconds)
    resident, copied = times.pop("resident"), times.pop("copied")
    return Speed(hidden, layers, batch, times, resident, copied)


def _ours(
    bench: Bench, names: Sequence[str], hidden: int, layers: int, batch: int, steps: int = 1
) -> dict[str, Step]:
    """Some forms of a model, all over one arena."""
    provider = bench.plan.provider
    files = {name: write_model(bench.folder, name, hidden, hidden, layers) for name in names}
    opened = {name: open_form(provider, name, file) for name, file in files.items()}
    store = store_of(provider, opened[names[0]].contract, batch, batch)
    return {name: our_step(one, store, batch, steps) for name, one in opened.items()}


def service(bench: Bench, name: str, _tell: Tell) -> Findings:
    """The whole service with frames, for each number of clients."""
    plan = bench.plan
    options = ["--provider", plan.provider, "--max-batch", "1024"]
    if plan.provider == "cuda":
        options += ["--allow-cpu-nodes", *["--cuda-graphs"] * FORMS[name].recorded]
    models = bench.model(name).parents[2]
    samples = through_the_service(models, plan.clients, bench.seconds, INPUT, *options)
    title = f"The service, frames of {SESSIONS} sessions, {name}: `{' '.join(options)}`"
    yield [asdict(one) for one in samples], f"{title}\n\n{service_table(plan.clients, samples)}"
