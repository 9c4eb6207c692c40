"""The device of host memory is as unkind as promised; else the tests over it would prove less than they say."""

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from ctypes import byref, c_char, c_int, c_long, c_size_t, c_void_p
from typing import Any

import pytest

from tests.gpu import COUNTED

GLOBAL, PINNED = 0, 0
TO_DEVICE, TO_HOST = 1, 2
FORBIDDEN, SPOILT = 900, 901
"""cudaErrorStreamCaptureUnsupported, cudaErrorStreamCaptureInvalidated"""
SIZE = 16


def device() -> Any:
    """The runtime, if it is ours, with the types of what the tests call; else None."""
    try:
        cuda = ctypes.CDLL("libcudart.so.13")
        cuda.device_count.restype = c_long
    except (OSError, AttributeError):
        return None
    cuda.cudaMemsetAsync.argtypes = [c_void_p, c_int, c_size_t, c_void_p]
    cuda.cudaMemcpyAsync.argtypes = [c_void_p, c_void_p, c_size_t, c_int, c_void_p]
    cuda.cudaMemcpy.argtypes = [c_void_p, c_void_p, c_size_t, c_int]
    cuda.cudaGraphInstantiate.argtypes = [c_void_p, c_void_p, ctypes.c_ulonglong]
    for function in (cuda.cudaStreamSynchronize, cuda.cudaFree, cuda.cudaFreeHost, cuda.cudaStreamDestroy):
        function.argtypes = [c_void_p]
    cuda.cudaGraphLaunch.argtypes = [c_void_p, c_void_p]
    cuda.cudaStreamBeginCapture.argtypes = [c_void_p, c_int]
    cuda.cudaStreamEndCapture.argtypes = [c_void_p, c_void_p]
    return cuda


CUDA = device()
pytestmark = [pytest.mark.gpu, COUNTED]


@pytest.fixture
def stream() -> Iterator[c_void_p]:
    made = c_void_p()
    assert CUDA.cudaStreamCreateWithFlags(byref(made), 1) == 0
    yield made
    assert CUDA.cudaStreamDestroy(made) == 0


@pytest.fixture
def memory() -> Iterator[c_void_p]:
    taken = c_void_p()
    assert CUDA.cudaMalloc(byref(taken), c_size_t(SIZE)) == 0
    yield taken
    assert CUDA.cudaFree(taken) == 0


@pytest.fixture
def pinned() -> Iterator[Any]:
    taken = c_void_p()
    assert CUDA.cudaHostAlloc(byref(taken), c_size_t(SIZE), PINNED) == 0
    yield (c_char * SIZE).from_address(taken.value or 0)
    assert CUDA.cudaFreeHost(taken) == 0


def record(stream: c_void_p, memory: c_void_p, pinned: Any) -> tuple[int, c_void_p]:
    """A graph that copies the memory to the host, and the status with which its recording ended."""
    graph = c_void_p()
    assert CUDA.cudaMemcpyAsync(pinned, memory, SIZE, TO_HOST, stream) == 0
    return CUDA.cudaStreamEndCapture(stream, byref(graph)), graph


def ran(program: str, *given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *given], check=False, capture_output=True, text=True
    )


def test_a_host_that_reads_memory_of_the_device_dies() -> None:
    done = ran(
        "import ctypes; cuda = ctypes.CDLL('libcudart.so.13'); at = ctypes.c_void_p()\n"
        "assert cuda.cudaMalloc(ctypes.byref(at), ctypes.c_size_t(16)) == 0\n"
        "print('taken', flush=True); ctypes.string_at(at, 1)"
    )
    assert (done.returncode, done.stdout) == (-11, "taken\n")


def test_what_nobody_waits_for_is_not_done(stream: c_void_p, memory: c_void_p, pinned: Any) -> None:
    CUDA.cudaMemsetAsync(memory, 7, SIZE, stream)
    pinned[:] = bytes(SIZE)
    CUDA.cudaMemcpyAsync(pinned, memory, SIZE, TO_HOST, stream)
    assert bytes(pinned) == bytes(SIZE)
    assert CUDA.cudaStreamSynchronize(stream) == 0
    assert bytes(pinned) == bytes([7]) * SIZE


def test_memory_that_was_just_taken_is_rubbish(stream: c_void_p, memory: c_void_p, pinned: Any) -> None:
    CUDA.cudaMemcpyAsync(pinned, memory, SIZE, TO_HOST, stream)
    CUDA.cudaStreamSynchronize(stream)
    assert bytes(pinned) == bytes([0xCD]) * SIZE


def test_to_take_memory_during_a_recording_fails_and_spoils_it(
    stream: c_void_p, memory: c_void_p, pinned: Any
) -> None:
    spoilt = CUDA.device_count(b"calls that spoil a recording")
    assert CUDA.cudaStreamBeginCapture(stream, GLOBAL) == 0
    assert CUDA.cudaMalloc(byref(c_void_p()), c_size_t(SIZE)) == FORBIDDEN
    status, graph = record(stream, memory, pinned)
    assert (status, graph.value) == (SPOILT, None)
    assert CUDA.device_count(b"calls that spoil a recording") == spoilt + 1


def test_a_replay_reads_what_is_at_the_recorded_address_by_then(
    stream: c_void_p, memory: c_void_p, pinned: Any
) -> None:
    pinned[:] = bytes(SIZE)
    assert CUDA.cudaStreamBeginCapture(stream, GLOBAL) == 0
    status, graph = record(stream, memory, pinned)
    CUDA.cudaStreamSynchronize(stream)
    assert (status, bytes(pinned)) == (0, bytes(SIZE))  # it was recorded, and not done

    made = c_void_p()
    assert CUDA.cudaGraphInstantiate(byref(made), graph, 0) == 0
    for byte in (1, 2):
        CUDA.cudaMemsetAsync(memory, byte, SIZE, stream)
        assert CUDA.cudaGraphLaunch(made, stream) == 0
        CUDA.cudaStreamSynchronize(stream)
        assert bytes(pinned) == bytes([byte]) * SIZE
    assert CUDA.cudaGraphExecDestroy(made) == 0
    assert CUDA.cudaGraphDestroy(graph) == 0


def test_a_copy_that_cuda_has_only_staged_is_done_when_its_stream_is_waited_for(
    stream: c_void_p, memory: c_void_p, pinned: Any
) -> None:
    """That is the stream of no name, for which no other waits."""

    def there() -> bytes:
        CUDA.cudaMemcpyAsync(pinned, memory, SIZE, TO_HOST, stream)
        CUDA.cudaStreamSynchronize(stream)
        return bytes(pinned)

    given = ctypes.create_string_buffer(bytes([7]) * SIZE, SIZE)
    assert CUDA.cudaMemcpy(memory, given, SIZE, TO_DEVICE) == 0
    given[:] = bytes(SIZE)
    assert there() == bytes([0xCD]) * SIZE
    assert CUDA.cudaStreamSynchronize(None) == 0
    assert there() == bytes([7]) * SIZE


def test_a_row_that_is_written_twice_stops_the_process() -> None:
    program = (
        "import sys, numpy as np; from service.arena_graphs import scatter_graph\n"
        "from service.runtime import make_session\n"
        "rows = np.array([[1], [int(sys.argv[1])]])\n"
        "feeds = {'arena': np.zeros((3, 2), np.float32), 'rows': rows, 'states': np.ones((2, 2), np.float32)}\n"
        "print(make_session(scatter_graph('float32', 2), 'cuda', 1).run(None, feeds)[0].sum())"
    )
    once, twice = ran(program, "2"), ran(program, "1")
    assert once.stdout == "4.0\n", once.stderr
    assert twice.returncode == -6
    assert "row 1 is written twice" in twice.stderr


def test_a_row_beyond_the_rows_stops_the_process() -> None:
    program = (
        "import sys, numpy as np; from service.arena_graphs import gather_graph\n"
        "from service.runtime import make_session\n"
        "feeds = {'arena': np.arange(3, dtype=np.float32)[:, None], 'rows': np.array([int(sys.argv[1])])}\n"
        "print(make_session(gather_graph('float32', 1), 'cuda', 1).run(None, feeds)[0].sum())"
    )
    first, beyond, before = (ran(program, row) for row in ("-3", "3", "-4"))
    assert first.stdout == "0.0\n", first.stderr
    assert (beyond.returncode, before.returncode) == (-6, -6)
    assert "row 3 of 3" in beyond.stderr
    assert "row -4 of 3" in before.stderr


def test_a_kernel_that_nobody_plays_is_named() -> None:
    done = ran(
        "import numpy as np; from onnx import parser; from service.runtime import make_session\n"
        "graph = 'one (float[2,2] x) => (float[2,2] y) { y = Trilu (x) }'\n"
        "model = parser.parse_model('<ir_version: 10, opset_import: [\"\": 20]>' + graph)\n"
        "make_session(model.SerializeToString(), 'cuda', 1).run(None, {'x': np.ones((2, 2), np.float32)})"
    )
    assert done.returncode == -6
    assert "cuda::TriluKernel" in done.stderr
    assert done.stderr.endswith("nobody plays this kernel yet (tests/cuda)\n")
