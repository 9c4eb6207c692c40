"""The one place that makes ONNX Runtime sessions."""

import os
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from carousel.errors import CarouselError

if TYPE_CHECKING:
    import onnxruntime

Provider = Literal["cpu", "cuda"]

_PROVIDERS: dict[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

NOT_APPLIED = ["GatherSliceToSplitFusion"]
"""Optimisations that make one `Split` of several `Slice`: graphs of one step are without it, as a CUDA graph would
replay its copies from the host (`export/recorded.py`)."""
_LOADING = Lock()


class CudaOptions(NamedTuple):
    """How models run on CUDA."""

    graphs: bool = False
    """Whether runs of one step are captured, a CUDA graph for each size of batch."""
    tf32: bool = False
    """Whether the factors of products of float32 may be rounded to 10 bits of fraction."""
    allow_cpu_nodes: bool = False
    """Whether part of a model may run on the CPU."""


PLAIN = CudaOptions()


class RuntimeUnavailableError(CarouselError):
    """ONNX Runtime, or the provider asked for, is not really there."""


def load_runtime() -> Any:
    """Import onnxruntime.

    Raises:
        RuntimeUnavailableError: neither runtime is installed.
    """
    # Its Linux packages send telemetry from 1.29 on, unless told otherwise before they are imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # noqa: TID251 - read by the library, not by us
    try:
        import onnxruntime  # noqa: PLC0415 - the client and the command's help must do without
    except ImportError as error:
        raise RuntimeUnavailableError(
            "no ONNX Runtime is installed; install carousel[cpu], or carousel[gpu] on a machine with CUDA"
        ) from error
    return onnxruntime


def make_session(
    model: Path | bytes, provider: Provider, threads: int, cuda: CudaOptions = PLAIN
) -> "onnxruntime.InferenceSession":
    """Open a model.

    One intra-op thread without spinning is fastest beside a busy server on few cores; more threads pay only when
    whole cores are free. Denormal numbers are flushed to zero: they make a run up to 68 times slower. That flag
    binds to the thread that makes the first session of the process, and to threads started by it later; who calls this
    has the flag set (`service/denormals.py`), so that threads of the runtime that are started here have it, too.

    Raises:
        RuntimeUnavailableError: the provider is not there. ONNX Runtime itself only logs this and goes on on the
            CPU, and the list of available providers names providers that cannot be loaded.
    """
    ort = load_runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # On CUDA, what is wrong is told in one line below.
    options.log_severity_level = 4 if provider == "cuda" else 3
    # The last level, of the CPU's own layouts, brings nothing to these graphs, and the process down with those in float16.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    wanted, missing = _PROVIDERS[provider], ""
    if provider == "cuda":
        ort.set_default_logger_severity(4)  # what it cannot load is told below, in one line
        missing = _preload(ort)
        _take_what_is_asked_for(ort)
    if wanted not in ort.get_available_providers():
        raise RuntimeUnavailableError(
            f"provider {provider}: this onnxruntime has no {wanted}; uninstall it, and install carousel[gpu]"
        )
    given = cuda_settings(cuda) if provider == "cuda" else {}
    try:
        # Else a session that cannot be made, or fails, is made again on the CPU, and the reason is lost.
        session = ort.InferenceSession(
            model, options, providers=[(wanted, given)], enable_fallback=0, disabled_optimizers=NOT_APPLIED
        )
    except RuntimeError as error:  # what is wrong with a model has types of its own
        if provider == "cpu":
            raise
        raise RuntimeUnavailableError(f"provider {provider}: {' '.join(str(error).split())}") from error
    if session.get_providers()[0] != wanted:
        raise RuntimeUnavailableError(
            f"provider {provider}: {wanted} could not be loaded ({missing or 'is a GPU there?'}); "
            f"onnxruntime fell back to {session.get_providers()[0]}"
        )
    return session


@cache
def _preload(ort: Any) -> str:
    """Find the libraries that pip installs beside the runtime; returns the first that could not be loaded, or nothing."""
    told = StringIO()
    with _LOADING, redirect_stdout(told):  # where it prints one line a library, and some advice
        ort.preload_dlls()
    return next((line for line in told.getvalue().splitlines() if line.startswith("Failed")), "")


def _take_what_is_asked_for(ort: Any) -> None:
    """Rows and buffers, which are no session's, come from memory that else grows to the next power of two."""
    bindings = ort.capi._pybind_state
    if hasattr(bindings, "set_arena_extend_strategy"):  # has no other name yet, and may go one day
        bindings.set_arena_extend_strategy(bindings.ArenaExtendStrategy.kSameAsRequested)


def cuda_settings(cuda: CudaOptions) -> dict[str, str]:
    """Options of ONNX Runtime's CUDA provider; it takes TF32 unless told otherwise."""
    return {
        "use_tf32": str(int(cuda.tf32)),
        "enable_cuda_graph": str(int(cuda.graphs)),
        # Its own memory grows by what is asked for, not to the next power of two: the arena needs the rest.
        "arena_extend_strategy": "kSameAsRequested",
    }
