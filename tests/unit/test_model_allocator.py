"""Memory that is freed stays with the process, and nobody else's rules change."""

import subprocess
import sys

import pytest

from model.allocator import keep_freed_memory

PROGRAM = """
import resource, sys, torch
from model.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def fetched(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
fetched(20)
print(fetched(5))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_pages_that_were_freed_are_not_fetched_again() -> None:
    """64 MiB five times over, of pages of 4 KiB, or 2 MiB where the system joins them."""
    fetched = {
        how: int(subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, check=True).stdout)
        for how in ("keep", "leave")
    }
    assert fetched["keep"] < 50 < 5 * 64 // 2 <= fetched["leave"]


def test_another_system_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert keep_freed_memory() is False
