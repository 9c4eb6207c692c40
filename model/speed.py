"""How long cells take over time, forwards and backwards, beside torch.nn.LSTM: pairs of measurements of one run.

Axes: T time, B batch, H hidden and input alike.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from multiprocessing.pool import Pool
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from model.allocator import keep_freed_memory
from model.cells import CELLS
from model.cells.gated import Gated
from model.layer import Conditions, run_layer
from model.over_time import has_kernel, unroll
from model.tried import TRIED

Way = Callable[[Gated[Any, Any], Tensor, Any], tuple[Tensor, Any]]

STEPS, BATCH, WIDTH = 128, 32, 256


@dataclass(frozen=True)
class Speed:
    """One line of the table."""

    cell: str
    way: str
    """`kernel` or `loop`, and what is particular about it."""
    at_most: float | None
    """What `median` is to reach."""
    runs: list[float]
    """Time for each multiply-add as a multiple of torch.nn.LSTM's, measured right before."""
    milliseconds: list[float]

    @property
    def median(self) -> float:
        """The figure to quote."""
        return median(self.runs)


def speeds(runs: int, *, tried: bool = False) -> Iterator[Speed]:
    """Measure one forward and backward pass of everything: gradients of inputs and weights, float32, one thread.

    Args:
        runs: Pairs of measurements of each line.
        tried: Other ways to run an LSTM too.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        baseline = _Pass(nn.LSTM(WIDTH, WIDTH))
        with get_context("spawn").Pool(1, initializer=keep_freed_memory) as other:
            # A process cannot unlearn it, and the baseline is to be what everybody gets.
            yield _compare("lstm", "kernel, freed memory kept", _Elsewhere(other), baseline, runs, 1.0)
        for name, cell, way, run, at_most in _contenders(tried):
            yield _compare(name, way, _Pass(cell, run), baseline, runs, at_most)
    finally:
        torch.set_num_threads(threads)


def _contenders(tried: bool) -> Iterator[tuple[str, Gated[Any, Any], str, Way, float | None]]:
    cells = {name: CELLS[name](WIDTH, WIDTH) for name in CELLS if name != "projected"}
    cells["projected"] = CELLS["projected"](WIDTH, WIDTH, projection=WIDTH // 2)
    cells["gru, reset before"] = CELLS["gru"](WIDTH, WIDTH, reset_after=False)
    for name, cell in cells.items():
        if has_kernel(cell):
            yield name, cell, "kernel", _as_trained, None if name == "lstm" else 2.0
        yield name, cell, "loop", unroll, None if has_kernel(cell) else 2.0
    if tried:
        yield from (("lstm", cells["lstm"], way, run, None) for way, run in TRIED.items())


def _as_trained(cell: Gated[Any, Any], x_TBI: Tensor, state: Any) -> tuple[Tensor, Any]:
    return run_layer(cell, x_TBI, state, Conditions(), layer=0, training=True)


class _Pass:
    """One forward and backward pass."""

    def __init__(self, module: nn.Module, run: Way | None = None) -> None:
        self._module, self._run = module, run
        # Every number of a matrix is one multiply-add of a step, in every cell.
        self.multiply_adds = sum(weight.numel() for weight in module.parameters() if weight.ndim == 2)
        self._x_TBI = torch.randn(STEPS, BATCH, WIDTH, requires_grad=True)

    def seconds(self) -> float:
        """Make it once."""
        self._x_TBI.grad = None
        self._module.zero_grad()
        start = perf_counter()
        if isinstance(self._module, Gated) and self._run is not None:
            output, _ = self._run(self._module, self._x_TBI, self._module.initial_state(BATCH))
        else:
            output, _ = self._module(self._x_TBI)
        torch.autograd.backward(output, torch.ones_like(output))
        return perf_counter() - start


class _Elsewhere:
    """The pass of an LSTM in another process."""

    def __init__(self, process: Pool) -> None:
        self._process = process
        self.multiply_adds = _lstm().multiply_adds

    def seconds(self) -> float:
        """Make it once."""
        return self._process.apply(_lstm_seconds)


@cache
def _lstm() -> _Pass:
    torch.set_num_threads(1)
    return _Pass(CELLS["lstm"](WIDTH, WIDTH), _as_trained)


def _lstm_seconds() -> float:
    return _lstm().seconds()


def _compare(
    name: str, way: str, ours: _Pass | _Elsewhere, base: _Pass, runs: int, at_most: float | None
) -> Speed:
    for one in (base, ours):
        one.seconds()  # what is first has to fetch memory and to compile
    pairs = [(base.seconds(), ours.seconds()) for _ in range(runs)]
    work = base.multiply_adds / ours.multiply_adds
    return Speed(
        cell=name,
        way=way,
        at_most=at_most,
        runs=[work * mine / theirs for theirs, mine in pairs],
        milliseconds=[1000 * mine for _, mine in pairs],
    )
