"""Denormal numbers are zero while a model runs, on whichever thread that is, and nowhere else."""

import ctypes
import platform
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from carousel.contract import Port
from export.draft import Draft
from service.backend import Run
from service.denormals import Denormals
from service.onnx_backend import OnnxBackend
from service.opening import open_model
from service.row_store import RowStore
from tests.ports_model import contract, save

pytestmark = pytest.mark.skipif(not Denormals().known, reason="knows neither this machine nor its C library")

TINY = np.float32(1e-40)
T = TypeVar("T")


def on_a_new_thread(job: Callable[[], T]) -> T:
    """Run a job where numbers are what they are by default: whoever ran before may have left a flag behind."""

    def set_default() -> None:
        fe_dfl_env = ctypes.c_void_p(-1)
        assert ctypes.CDLL("libm.so.6").fesetenv(fe_dfl_env) == 0

    with ThreadPoolExecutor(1, initializer=set_default) as pool:
        return pool.submit(job).result()


def product() -> float:
    """1e-40 times 1, in float32 arithmetic."""
    return float((np.full(33, TINY) * np.float32(1)).max())


def test_denormals_are_zero_within_the_block_and_themselves_after_it() -> None:
    def job() -> list[float]:
        before = product()
        with Denormals().as_zero():
            within = product()
        return [before, within, product()]

    assert on_a_new_thread(job) == [float(TINY), 0.0, float(TINY)]


def test_a_block_that_fails_leaves_no_flag_behind() -> None:
    def job() -> float:
        with pytest.raises(RuntimeError), Denormals().as_zero():
            raise RuntimeError
        return product()

    assert on_a_new_thread(job) == float(TINY)


def test_other_threads_are_left_alone() -> None:
    entered, done = threading.Event(), threading.Event()

    def flushing() -> None:
        with Denormals().as_zero():
            entered.set()
            assert done.wait(10)

    thread = threading.Thread(target=flushing)
    thread.start()
    assert entered.wait(10)
    found = on_a_new_thread(product)
    done.set()
    thread.join()
    assert found == float(TINY)


def test_a_thread_that_flushes_anyway_goes_on_doing_so() -> None:
    def job() -> float:
        with Denormals().as_zero():
            with Denormals().as_zero():
                pass
            return product()

    assert on_a_new_thread(job) == 0.0


def test_what_was_made_on_a_thread_that_flushes_leaves_no_flag_behind_on_another() -> None:
    # ONNX Runtime's own setting makes the thread that loads the first model flush for ever.
    def load() -> Denormals:
        with Denormals().as_zero():
            return Denormals()

    made = on_a_new_thread(load)

    def job() -> list[float]:
        with made.as_zero():
            within = product()
        return [within, product()]

    assert on_a_new_thread(job) == [0.0, float(TINY)]


@pytest.mark.parametrize(("name", "value"), [("machine", "riscv64"), ("libc_ver", ("musl", "1.2"))])
def test_where_the_flag_is_not_known_runs_are_only_slower(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    monkeypatch.setattr(platform, name, lambda: value)
    denormals = Denormals()
    assert not denormals.known

    def job() -> float:
        with denormals.as_zero():
            return product()

    assert on_a_new_thread(job) == float(TINY)


@pytest.mark.parametrize("flushing", [True, False])
def test_a_state_that_decays_becomes_zero_and_no_run_is_slowed_down_by_denormals(
    tmp_path: Path, flushing: bool
) -> None:
    draft = Draft()
    draft.node("Identity", ["x"], ["y"])
    draft.node("Mul", ["state", draft.weight("half", np.array([0.5], np.float32))], ["state_out"])
    ports = (Port(name="x", dtype="float32"),), (Port(name="y", dtype="float32"),)
    path = save(draft.to_model(contract(*ports, initial=(1.0,))), tmp_path, "decay")
    # The event loop runs short batches on a thread that has not loaded the model.
    session, promised = on_a_new_thread(lambda: open_model(path, "cpu", 1))
    backend = OnnxBackend(session, promised, RowStore(promised, 4))
    if not flushing:
        backend._denormals.as_zero = (
            nullcontext  # the test could not fail if denormals came to nothing anyway
        )
    run = Run(np.array([1]), np.array([1]), np.ones(1, np.int32), (np.zeros((1, 1), np.float32),))

    def job() -> list[float]:
        backend.write(np.array([1]), np.ones((1, 1), np.float32))
        states = []
        for _ in range(140):
            backend.run(run)
            states.append(float(backend.read(np.array([1]))[0, 0]))
        return [*states, product()]

    *states, after = on_a_new_thread(job)
    assert states[:126] == [2.0**-k for k in range(1, 127)]
    assert states[126:] == [0.0 if flushing else 2.0**-k for k in range(127, 141)]
    assert after == float(TINY)
