"""Where a GPU is, tests of the arena run on it, too; elsewhere they are skipped and say why."""

import ctypes
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from service.arena_graphs import gather_graph
from service.runtime import RuntimeUnavailableError, make_session


def why_not() -> str:
    """Why nothing can run on CUDA here; empty: it can."""
    try:
        make_session(gather_graph("float32", 1), "cuda", 1)
    except RuntimeUnavailableError as error:
        return str(error)
    return ""


_WHY_NOT = why_not()
ON_CUDA = [pytest.mark.gpu, pytest.mark.skipif(bool(_WHY_NOT), reason=f"no GPU: {_WHY_NOT}")]
CUDA = pytest.param("cuda", marks=ON_CUDA)
PROVIDERS = ["cpu", CUDA]


def _device_count() -> "ctypes._NamedFuncPointer | None":
    """How often the device of the tests (tests/cuda) has done something; a real one does not tell."""
    try:
        found = ctypes.CDLL("libcudart.so.13").device_count
    except (OSError, AttributeError):
        return None
    found.restype = ctypes.c_long
    return found


_COUNT = _device_count()
COUNTED = pytest.mark.skipif(_COUNT is None, reason="only the device of tests/cuda counts what it does")
TO_DEVICE, TO_HOST = "copies to the device", "copies to the host"
BYTES_TO_DEVICE, BYTES_TO_HOST, BYTES_ON_DEVICE = (
    "bytes to the device",
    "bytes to the host",
    "bytes on the device",
)
REPLAYS, SPOILS, WAITS = "replays", "calls that spoil a recording", "waits"


def expect_device() -> None:
    """Hold that the device of tests/cuda is there.

    Raises:
        pytest.UsageError: it is not; says why.
    """
    if _WHY_NOT or _COUNT is None:
        raise pytest.UsageError(f"expected the device of tests/cuda: {_WHY_NOT or 'got another one'}")


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """What the device of the tests does meanwhile, by name; nothing on another device."""
    names = (TO_DEVICE, TO_HOST, BYTES_TO_DEVICE, BYTES_TO_HOST, BYTES_ON_DEVICE, REPLAYS, SPOILS, WAITS)
    counts = Counter[str]()
    before = {name: _now(name) for name in names}
    yield counts
    counts.update({name: _now(name) - before[name] for name in names})


def _now(name: str) -> int:
    return 0 if _COUNT is None else int(_COUNT(name.encode()))
