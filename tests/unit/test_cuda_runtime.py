"""What is asked of ONNX Runtime for CUDA, as far as it shows without a GPU."""

from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest
from onnxruntime.capi import _pybind_state as bindings

from service.arena_bucket import _places
from service.arena_graphs import gather_graph
from service.runtime import RuntimeUnavailableError, make_session

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
