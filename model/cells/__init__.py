"""Recurrent cells: one recurrence a file."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from model.cells.coupled import CoupledLSTM
from model.cells.gated import Gated
from model.cells.gru import GRU
from model.cells.highway_depth import HighwayDepthLSTM
from model.cells.highway_time import HighwayTimeLSTM
from model.cells.lstm import LSTM
from model.cells.multiplicative import MultiplicativeLSTM
from model.cells.multiplicative_brief import MultiplicativeBriefLSTM
from model.cells.peephole import PeepholeLSTM
from model.cells.projected import ProjectedLSTM
from model.cells.rnn import RNN

CELLS: Final[Mapping[str, Callable[..., Gated[Any, Any]]]] = {
    "lstm": LSTM,
    "peephole": PeepholeLSTM,
    "coupled": CoupledLSTM,
    "projected": ProjectedLSTM,
    "highway-time": HighwayTimeLSTM,
    "highway-depth": HighwayDepthLSTM,
    "multiplicative-brief": MultiplicativeBriefLSTM,
    "multiplicative": MultiplicativeLSTM,
    "gru": GRU,
    "rnn": RNN,
}
"""What recipes call them. Each is made from `(input_size, hidden_size, **options)`; trees are apart, in `model.tree`."""
