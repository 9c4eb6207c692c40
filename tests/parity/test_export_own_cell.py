"""A cell that nobody in export/ has heard of, in the style of model/cells, goes the same way as ours."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.characters import characters_model
from export.door import export_checkpoint
from export.errors import ExportError
from model.cells.gated import Gated
from model.cells.lstm import LSTM
from tests.models import EMBEDDING, tiny_checkpoint

HIDDEN = 6


class LiGRUState(NamedTuple):
    """The hidden state, and a trace of it that decays."""

    hidden: Tensor
    trace: Tensor


class LiGRUGates(NamedTuple):
    """An update gate in (0, 1) and a candidate that is not negative."""

    update: Tensor
    candidate: Tensor


class TracedLiGRU(Gated[LiGRUState, LiGRUGates]):
    """Ravanelli et al. 2018 without batch normalisation, with layer normalisation, a learned start and a slow trace."""

    gate_names = ("update", "candidate")

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.norm = nn.Sequential(nn.LayerNorm(2 * hidden_size), nn.Dropout(0.5))
        self.start = nn.Parameter(torch.linspace(-0.5, 0.5, hidden_size))
        self.decay = nn.Parameter(torch.full((hidden_size,), 2.0))

    def initial_state(self, batch: int) -> LiGRUState:
        return LiGRUState(self.start.expand(batch, -1), self.bias.new_zeros(batch, self.hidden_size))

    def gates(self, projected_t: Tensor, hidden: Tensor, state: LiGRUState) -> LiGRUGates:
        recurrent = self.norm(functional.linear(hidden, self.weight_h))
        z, a = (projected_t + recurrent).split(self.hidden_size, dim=-1)
        return LiGRUGates(torch.sigmoid(z - 0.1 * state.trace.abs()), functional.relu(a).clamp(max=3.0))

    def update(self, gates: LiGRUGates, state: LiGRUState) -> tuple[Tensor, LiGRUState]:
        hidden = torch.lerp(gates.candidate, state.hidden, 0.25) * (1 - gates.update)
        hidden = hidden + gates.update * state.hidden[:, : self.hidden_size]
        keep = torch.sigmoid(self.decay)
        output = torch.where(hidden > 1, torch.sqrt(hidden.abs()), torch.tanh(hidden)) / 2
        return output, LiGRUState(output, keep * state.trace + (1 - keep) * hidden)


def with_cell(cell: Gated) -> object:
    checkpoint = tiny_checkpoint(hidden=HIDDEN, layers=1)
    checkpoint.model.stack.cells[0] = cell.eval()
    return checkpoint


def test_it_passes_every_check_of_the_door_and_is_bit_identical_in_any_batch(tmp_path: Path) -> None:
    written = export_checkpoint(with_cell(TracedLiGRU(EMBEDDING, HIDDEN)), tmp_path / "own")

    assert written.contract.invariant
    assert written.contract.recurrence == "TracedLiGRU x 1"
    assert [s.name for s in written.contract.segments] == ["layer0.hidden", "layer0.trace"]


def test_a_session_starts_where_the_cell_starts(tmp_path: Path) -> None:
    contract = export_checkpoint(with_cell(TracedLiGRU(EMBEDDING, HIDDEN)), tmp_path / "own").contract

    np.testing.assert_allclose(
        contract.initial, [*np.linspace(-0.5, 0.5, HIDDEN), *np.zeros(HIDDEN)], rtol=1e-6
    )


def test_what_depends_on_weights_alone_is_computed_once_and_not_in_every_step() -> None:
    graph = characters_model(with_cell(TracedLiGRU(EMBEDDING, HIDDEN))).graph
    (scan,) = [node for node in graph.node if node.op_type == "Scan"]
    (body,) = [onnx.helper.get_attribute_value(a) for a in scan.attribute if a.name == "body"]

    assert [node.op_type for node in body.node].count("Sigmoid") == 1  # the decay's is in the weights
    assert "Transpose" not in {node.op_type for node in body.node}


class Scaled(LSTM):
    """An LSTM in all but its output: the fused operator would be wrong."""

    def update(self, gates, state):
        output, state = super().update(gates, state)
        return output * 0.5, state


def test_a_cell_made_from_one_of_ours_is_not_taken_for_it() -> None:
    graph = characters_model(with_cell(Scaled(EMBEDDING, HIDDEN))).graph

    assert "LSTM" not in {node.op_type for node in graph.node}


def test_a_stack_of_several_cells_is_one_form_too() -> None:
    checkpoint = tiny_checkpoint(hidden=HIDDEN, layers=2)
    checkpoint.model.stack.cells[1] = TracedLiGRU(HIDDEN, HIDDEN).eval()
    kinds = [node.op_type for node in characters_model(checkpoint).graph.node]

    assert kinds.count("Scan") == 2
    assert "LSTM" not in kinds


class Sorted(LSTM):
    def update(self, gates, state):
        output, state = super().update(gates, state)
        return torch.sort(output, dim=-1).values, state


class Branching(LSTM):
    def update(self, gates, state):
        output, state = super().update(gates, state)
        return (output if float(output.sum()) > 0 else -output), state


class Sharp(LSTM):
    def update(self, gates, state):
        output, state = super().update(gates, state)
        return functional.softplus(output, beta=3), state


@pytest.mark.parametrize(
    ("cell", "line"),
    [
        (Sorted, r"Sorted: aten.sort.default has no form in ONNX here, see the table in export/aten.py"),
        (Sharp, "Sharp: aten.softplus.default has no form in ONNX here"),
        (Branching, "Branching: PyTorch cannot trace its step: "),
    ],
)
def test_a_step_without_a_form_is_refused_in_one_line(cell: type[LSTM], line: str) -> None:
    with pytest.raises(ExportError, match=line) as raised:
        characters_model(with_cell(cell(EMBEDDING, HIDDEN)))
    assert "\n" not in str(raised.value)
