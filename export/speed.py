"""How fast each recurrence is as a graph, against the fused LSTM of the same shape: one process, one thread.

Axes: T time, B batch, H hidden (and as many inputs).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import onnxruntime

from export.bare import bare_model
from export.timing import time_ratio
from model.cells.cell import Cell
from model.cells.coupled import CoupledLSTM
from model.cells.gru import GRU
from model.cells.highway_depth import HighwayDepthLSTM
from model.cells.highway_time import HighwayTimeLSTM
from model.cells.lstm import LSTM
from model.cells.multiplicative import MultiplicativeLSTM
from model.cells.multiplicative_brief import MultiplicativeBriefLSTM
from model.cells.peephole import PeepholeLSTM
from model.cells.projected import ProjectedLSTM
from model.cells.rnn import RNN
from model.costs import COSTS, count

Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
SHAPES: Shapes = ((128, 512), (1, 16, 64), (1, 16))
"""Values of H, B and T."""


class SteppedLSTM(LSTM):
    """The LSTM as a cell that no operator is known for: what a Scan costs."""


CELLS: dict[str, Callable[[int], Cell[Any, Any]]] = {
    "lstm": lambda n: LSTM(n, n),
    "lstm, as a Scan": lambda n: SteppedLSTM(n, n),
    "peephole": lambda n: PeepholeLSTM(n, n),
    "coupled": lambda n: CoupledLSTM(n, n),
    "projected": lambda n: ProjectedLSTM(n, n, projection=n // 2),
    "highway-time": lambda n: HighwayTimeLSTM(n, n),
    "highway-depth": lambda n: HighwayDepthLSTM(n, n),
    "multiplicative-brief": lambda n: MultiplicativeBriefLSTM(n, n),
    "multiplicative": lambda n: MultiplicativeLSTM(n, n),
    "gru": lambda n: GRU(n, n),
    "gru, reset before": lambda n: GRU(n, n, reset_after=False),
    "rnn": lambda n: RNN(n, n),
}
"""Made for I = H; the projected one hands on half."""


@dataclass(frozen=True)
class Speed:
    """One recurrence at one shape."""

    cell: str
    hidden: int
    batch: int
    steps: int
    seconds: float
    """Of a run, the median."""
    ratio: float
    """To the fused LSTM, run in turns with it."""
    work: float
    """Multiply-adds, as a ratio to the LSTM's."""

    @property
    def per_work(self) -> float:
        """What the form costs: the ratio of times divided by that of multiply-adds."""
        return self.ratio / self.work


def speeds(tell: Callable[[str], None], shapes: Shapes = SHAPES) -> Iterator[Speed]:
    """Measure every cell at every shape.

    Args:
        tell: Is told what is measured next.
        shapes: Values of H, B and T.
    """
    hiddens, batches, steps = shapes
    for hidden in hiddens:
        lstm = _session("lstm", hidden)
        for cell in CELLS:
            other, work = _session(cell, hidden), _work(cell, hidden) / _work("lstm", hidden)
            for B, T in product(batches, steps):
                tell(f"{cell}, H={hidden}, B={B}, T={T}")
                seconds, ratio = time_ratio(_runner(other, B, T), _runner(lstm, B, T))
                yield Speed(cell, hidden, B, T, seconds, ratio, work)


def _session(cell: str, hidden: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = bare_model([CELLS[cell](hidden)])
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _runner(session: onnxruntime.InferenceSession, batch: int, steps: int) -> Callable[[], object]:
    rng = np.random.default_rng(0)
    x, lengths, state = session.get_inputs()
    feeds = {
        x.name: rng.normal(size=(batch, steps, x.shape[2])).astype(np.float32),
        lengths.name: np.full(batch, steps, np.int32),
        state.name: rng.uniform(-0.1, 0.1, (batch, state.shape[1])).astype(np.float32),
    }
    return lambda: session.run(None, feeds)


def _work(cell: str, hidden: int) -> int:
    cost = COSTS[cell.removesuffix(", as a Scan")]
    return count(cost.multiply_adds, n_x=hidden, n_h=hidden, n_p=hidden // 2, n_m=hidden)
