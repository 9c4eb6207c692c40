"""The benchmark of training: what it divides by what, and that it measures the function it names."""

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from model import speed, tried
from model.cells import CELLS
from model.cells.lstm import LSTM
from model.costs import COSTS, count
from model.over_time import unroll
from model.tried import TRIED
from tests.cells import gradients, random_inputs, random_state, small, variables

EXACT = {"rtol": 1e-10, "atol": 1e-10}


class Clockwork:
    """A pass that takes as long as it is told."""

    def __init__(self, multiply_adds: int, *seconds: float) -> None:
        self.multiply_adds = multiply_adds
        self._seconds = iter(seconds)

    def seconds(self) -> float:
        return next(self._seconds)


def test_a_figure_is_the_time_of_a_multiply_add_in_pairs() -> None:
    base, ours = Clockwork(100, 9.0, 2.0, 4.0, 2.0), Clockwork(50, 9.0, 1.0, 4.0, 3.0)
    line = speed._compare("gru", "loop", ours, base, runs=3, at_most=2.0)  # type: ignore[arg-type]
    assert line.runs == [1.0, 2.0, 3.0]
    assert line.median == 2.0
    assert line.milliseconds == [1000.0, 4000.0, 3000.0]


def test_every_cell_is_measured_in_the_way_it_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in {"STEPS": 3, "BATCH": 2, "WIDTH": 4}.items():
        monkeypatch.setattr(speed, name, size)
    threads = torch.get_num_threads()
    lines = list(speed.speeds(1))
    assert torch.get_num_threads() == threads
    assert {line.cell for line in lines} == {*CELLS, "gru, reset before"}
    ways = [line.way for line in lines if line.cell in ("lstm", "peephole")]
    assert ways == ["kernel, freed memory kept", "kernel", "loop", "loop"]
    assert all(value > 0 for line in lines for value in (*line.runs, *line.milliseconds))
    aims = {line.cell: line.at_most for line in reversed(lines) if line.at_most is not None}
    assert aims == {line.cell: 1.0 if line.cell == "lstm" else 2.0 for line in lines}


def test_a_pass_counts_the_multiply_adds_of_its_formula() -> None:
    sizes = {"n_x": 256, "n_h": 256, "n_p": 128, "n_m": 256}
    for name, cell, *_ in speed._contenders(tried=False):
        assert speed._Pass(cell, unroll).multiply_adds == count(COSTS[name].multiply_adds, **sizes)


@pytest.mark.parametrize("way", TRIED)
def test_what_was_tried_is_the_loop_with_all_gradients(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tried, "_compiled_step", lambda: tried._step)  # a compiler is no part of this
    torch.manual_seed(0)
    cell: Any = small("lstm")
    assert isinstance(cell, LSTM)
    x, state = random_inputs(cell, 7, 3), random_state(cell, 3)
    found, expected, of = TRIED[way](cell, x, state), unroll(cell, x, state), variables(cell, x, state)
    assert_close(found, expected, **EXACT)
    assert_close(gradients(found, of), gradients(expected, of), **EXACT)
