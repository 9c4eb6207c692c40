"""What is asked of ONNX Runtime for CUDA: as far as it shows without a GPU, and what it makes of it where one is."""

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnxruntime.capi import _pybind_state as bindings

from service.arena_bucket import _places
from service.arena_graphs import gather_graph
from service.arena_store import allocate
from service.opening import open_model
from service.placement import operators_of
from service.repository import ModelError
from service.runtime import CudaOptions, Provider, RuntimeUnavailableError, make_session
from tests.gpu import COUNTED, CUDA
from tests.models import tiny_characters
from tests.one_step_model import write_one_step
from tests.simulation.test_exactly_once_arena import fake_graph

PROVIDERS = ["CUDAExecutionProvider", "CPUExecutionProvider"]
GRAPH = gather_graph("float32", 4)


def test_a_session_that_cannot_be_made_is_not_made_again_on_the_cpu_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: Any) -> None:
        raise RuntimeError("CUDA failure 2: out of memory ;\n GPU=0")

    monkeypatch.setattr(onnxruntime.InferenceSession, "_create_inference_session", failing)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: PROVIDERS)
    with pytest.raises(
        RuntimeUnavailableError, match=r"^provider cuda: CUDA failure 2: out of memory ; GPU=0$"
    ):
        make_session(GRAPH, "cuda", 1)
    with pytest.raises(RuntimeError, match="CUDA failure 2"):
        make_session(GRAPH, "cpu", 1)
    assert "Falling back" not in capsys.readouterr().out


def test_rows_take_as_much_of_the_device_as_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(bindings, "set_arena_extend_strategy", asked.append, raising=False)
    monkeypatch.setattr(onnxruntime, "get_available_providers", list)
    with pytest.raises(RuntimeUnavailableError):
        make_session(GRAPH, "cuda", 1)
    assert asked == [bindings.ArenaExtendStrategy.kSameAsRequested]


def test_a_buffer_is_where_its_kernel_wants_it() -> None:
    """Memory of the host that CUDA works with has names that begin like the device's."""
    names = {"x": "Cuda", "lengths": "CUDA_CPU", "rows": "CudaPinned", "free": "Cpu"}
    ports = [SimpleNamespace(name=name) for name in names]
    memories = [SimpleNamespace(name=memory) for memory in names.values()]
    session: Any = SimpleNamespace(
        get_inputs=lambda: ports,
        get_outputs=list,
        get_input_memory_infos=lambda: memories,
        get_output_memory_infos=list,
    )
    assert _places(session, "cuda") == {"x": "cuda", "lengths": "cpu", "rows": "cpu", "free": "cpu"}
    assert set(_places(session, "cpu").values()) == {"cpu"}


@pytest.fixture(params=[CUDA])
def provider(request: pytest.FixtureRequest) -> Provider:
    return request.param


@pytest.mark.parametrize("asked", [False, True])
def test_the_provider_has_taken_what_it_was_told(asked: bool, provider: Provider) -> None:
    session = make_session(GRAPH, provider, 1, CudaOptions(graphs=asked, tf32=asked))
    taken = session.get_provider_options()["CUDAExecutionProvider"]
    assert (taken["use_tf32"], taken["enable_cuda_graph"]) == (str(int(asked)),) * 2
    assert taken["arena_extend_strategy"] == "kSameAsRequested"


def test_the_operator_lstm_wants_its_lengths_on_the_host_and_products_nothing(
    tmp_path: Path, provider: Provider
) -> None:
    fused, _ = open_model(tiny_characters(tmp_path, hidden=8, target="cuda"), provider, 1)
    products, _ = open_model(write_one_step(tmp_path / "model.onnx"), provider, 1)
    on_host = [name for name, place in _places(fused, provider).items() if place == "cpu"]
    assert on_host == ["lengths"]
    assert "cpu" not in {place for name, place in _places(products, provider).items() if name != "lengths"}


def test_what_the_provider_hands_to_the_cpu_is_named_and_refused_unless_it_is_allowed(
    tmp_path: Path, provider: Provider
) -> None:
    """As it does with a node that computes with a shape."""
    file = tmp_path / "model.onnx"
    file.write_bytes(fake_graph(3).SerializeToString())
    with pytest.raises(
        ModelError, match=r"expected every operator on CUDA, got on the CPU: Squeeze; .*--allow-cpu-nodes"
    ):
        open_model(file, provider, 1)
    session, _ = open_model(file, provider, 1, cuda=CudaOptions(allow_cpu_nodes=True))
    assert operators_of(session, "CPUExecutionProvider") == ["Squeeze"]


@COUNTED
def test_rows_take_what_they_need_of_the_device_and_not_the_next_power_of_two(provider: Provider) -> None:
    make_session(GRAPH, provider, 1)
    before, size = free_bytes(), 300 << 20
    rows = allocate((size // 4,), np.dtype(np.float32), provider)
    taken = before - free_bytes()
    assert rows.device_name() == provider
    assert size <= taken < size + (1 << 20)


def free_bytes() -> int:
    left, total = ctypes.c_size_t(), ctypes.c_size_t()
    assert ctypes.CDLL("libcudart.so.13").cudaMemGetInfo(ctypes.byref(left), ctypes.byref(total)) == 0
    return left.value
