"""What gradient checkpointing over time saves and costs: peak memory and time of a pass against its length.

Axes: T time, B batch, H hidden and input alike.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import torch

from model.cells import CELLS
from model.layer import Conditions, run_layer

CELL, BATCH, WIDTH, STEPS = "peephole", 32, 256, (64, 256, 1024)


@dataclass(frozen=True)
class Peak:
    """One line of the table: a forward and a backward pass of one cell."""

    steps: int
    checkpointing: bool
    mebibytes: float
    """What the process came to need in addition, inputs and outputs included."""
    milliseconds: list[float]


def peaks(runs: int) -> Iterator[Peak]:
    """Measure passes of growing length, with checkpoints and without, in float32 and one thread. Linux only.

    Args:
        runs: Passes of each kind.
    """
    for steps in STEPS:
        for checkpointing in (False, True):
            with get_context("spawn").Pool(1) as fresh:  # what one pass has freed must not serve the next
                yield fresh.apply(_measure, (steps, checkpointing, runs))


def _measure(steps: int, checkpointing: bool, runs: int) -> Peak:
    torch.set_num_threads(1)
    cell, conditions = CELLS[CELL](WIDTH, WIDTH), Conditions(checkpointing=checkpointing)

    def seconds(length: int) -> float:
        x_TBI = torch.randn(length, BATCH, WIDTH, requires_grad=True)
        start = perf_counter()
        output, _ = run_layer(cell, x_TBI, cell.initial_state(BATCH), conditions, layer=0, training=True)
        torch.autograd.backward(output, torch.ones_like(output))
        return perf_counter() - start

    seconds(2)  # fetches what every pass needs
    before = _peak()
    milliseconds = [1000 * seconds(steps) for _ in range(runs)]
    return Peak(steps, checkpointing, _peak() - before, milliseconds)


def _peak() -> float:
    """The most memory that this process has had, MiB. `getrusage` would tell that of its parent, if it is more."""
    (kibibytes,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(kibibytes) / 1024
