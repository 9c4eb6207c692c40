"""The forms of our step that `carousel bench cuda` times, and the loops of torch that it times them against.

Axes: B sessions, T steps.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bench.cuda import HALF
from export.bare import SEED, bare_model
from export.options import Options
from model.cells.lstm import LSTM
from service.arena_backend import ArenaBackend, power_of_two
from service.arena_store import ArenaStore
from service.backend import Run
from service.opening import open_model
from service.runtime import CudaOptions, Provider

if TYPE_CHECKING:
    import onnxruntime

    from carousel.contract import Contract

Step = Callable[[], object]


class Form(NamedTuple):
    """A way to write our step, and to run it."""

    file: str
    """What its files are called; the same where they are the same."""
    options: Options
    recorded: bool = False
    """Whether each run is the replay of a CUDA graph."""


_SINGLE = Options(target="cuda", single_step=True)
FORMS = {
    "fused": Form("fused", Options(target="cuda")),
    "single-step": Form("single", _SINGLE),
    "recorded": Form("single", _SINGLE, recorded=True),
    HALF: Form("half", Options(target="cuda", precision="fp16")),
}


def forms_on(provider: Provider) -> list[str]:
    """The forms that a provider runs: the CPU's cannot compute in float16."""
    return [name for name in FORMS if provider == "cuda" or name != HALF]


def write_model(folder: Path, name: str, inputs: int, hidden: int, layers: int) -> Path:
    """An untrained LSTM in a form, the same in all, as the only model of a repository; written once."""
    form = FORMS[name]
    file = folder / f"{form.file}-{inputs}-{hidden}-{layers}" / "bench" / "1" / "model.onnx"
    if not file.exists():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            cells = [LSTM(hidden if layer else inputs, hidden) for layer in range(layers)]
        file.parent.mkdir(parents=True)
        file.write_bytes(bare_model(cells, form.options).SerializeToString())
    return file


class Opened(NamedTuple):
    """A form of a model, loaded.

    One that is recorded is for one step alone: the runtime keeps its graphs by number, and would replay for a second
    batch of the same size what it has recorded with the buffers of the first.
    """

    session: "onnxruntime.InferenceSession"
    contract: "Contract"
    recorded: bool


def open_form(provider: Provider, name: str, file: Path) -> Opened:
    """Load a form. Operators that ONNX Runtime has put on the CPU are told, not refused: else nothing is known of them."""
    recorded = FORMS[name].recorded
    # The CPU provider has no graphs to record, and does not look at what is asked of CUDA.
    asked = CudaOptions(graphs=recorded, allow_cpu_nodes=True)
    return Opened(*open_model(file, provider, 1, cuda=asked), recorded)


def store_of(provider: Provider, contract: "Contract", sessions: int, most: int) -> ArenaStore:
    """Two rows for each of some sessions, of which at most so many step at once; all forms have the same rows."""
    return ArenaStore(contract, 1 + 2 * sessions, power_of_two(most), provider)


def our_step(opened: Opened, store: ArenaStore, batch: int, steps: int = 1) -> Step:
    """A chunk of T steps of the first B sessions, in as few runs as the form takes."""
    length = min(steps, opened.contract.max_steps)
    size = opened.contract.inputs[0].size
    x = np.random.default_rng(0).standard_normal((batch, steps, size), np.float32)
    chunks = [np.ascontiguousarray(x[:, start : start + length]) for start in range(0, steps, length)]
    return stepping(opened, store, np.split(np.arange(1, 1 + 2 * batch), 2), chunks)


def stepping(
    opened: Opened,
    store: ArenaStore,
    rows: Sequence[NDArray[np.int64]],
    chunks: Sequence[NDArray[np.float32]],
) -> Step:
    """Some runs through the backend each time it is called: sessions read one of their two rows and write the other.

    Args:
        opened: The model.
        store: Where the rows are; those of these sessions become zeros.
        rows: `[B]` twice.
        chunks: `[B, T, I]` each, a run each, all of one length.
    """
    batch, current = len(rows[0]), list(rows)
    for part in rows:
        store.write(part, np.zeros((batch, opened.contract.state_size), np.float32))
    backend = ArenaBackend(opened.session, opened.contract, store)
    if opened.recorded:
        backend.record(batch)
    lengths = np.full(batch, chunks[0].shape[1], np.int32)

    def step() -> object:
        result = None
        for chunk in chunks:
            result = backend.run(Run(current[0], current[1], lengths, (chunk,)))
            current.reverse()
        return result

    return step


def torch_step(provider: Provider, hidden: int, layers: int, batch: int, *, copied: bool) -> Step:
    """One step of `torch.nn.LSTM` with resident states, without TF32, finished when it returns."""
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


def time_in_turn(ways: Mapping[str, Step], runs: int, seconds: float) -> dict[str, list[float]]:
    """Time every way, one after the other, again and again.

    Args:
        ways: What to time.
        runs: How many times.
        seconds: That one timing takes, or as long as two steps do; a first timing says how many steps that is.

    Returns:
        The seconds of one step, `runs` times for each way.
    """
    counts = {name: _steps_in(step, seconds) for name, step in ways.items()}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, step in ways.items():
            found[name].append(_seconds_of(step, counts[name]))
    return found


def _steps_in(step: Step, seconds: float) -> int:
    step()  # the first pays for what is made once
    return max(2, int(seconds / _seconds_of(step, 1)))


def _seconds_of(step: Step, count: int) -> float:
    """Time of one step, from several after one that is not timed."""
    step()
    started = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - started) / count


def device_of(provider: Provider) -> dict[str, Any]:
    """What the figures were taken on, and with."""
    import onnxruntime

    name = torch.cuda.get_device_name() if provider == "cuda" else provider
    return {"device": name, "onnxruntime": onnxruntime.__version__, "torch": torch.__version__}


def free_bytes(provider: Provider) -> int | None:
    """Memory that is left on the device; None: there is none to ask."""
    return torch.cuda.mem_get_info()[0] if provider == "cuda" else None
