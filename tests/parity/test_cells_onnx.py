"""Our cells against the node cases of the ONNX standard: LSTM with peepholes, GRU, RNN, in all their directions."""

import importlib
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper
from onnx.backend.test.case import node as cases
from onnx.backend.test.case.node.gru import GRUHelper
from torch.testing import assert_close

from model.cells.gated import Gated
from model.cells.gru import GRU
from model.cells.peephole import PeepholeLSTM
from model.cells.rnn import RNN
from model.over_time import unroll
from tests.cells import drawn, random_inputs, random_state

Arrays = dict[str, NDArray[np.float32]]

GATES = {
    "LSTM": ("input", "output", "forget", "candidate"),
    "GRU": ("update", "reset", "candidate"),
    "RNN": ("candidate",),
}
"""The order of the operators."""

# `collect_testcases()` would make the cases of every operator, which takes ten seconds.
for operators in ("lstm", "gru", "rnn"):
    importlib.import_module(f"onnx.backend.test.case.node.{operators}")
CASES = {case.name: case for case in cases._NodeTestCases if case.model.graph.node[0].op_type in GATES}


def cell_of(op_type: str, arrays: Arrays, direction: int) -> Gated[Any, Any]:
    """Our cell with the weights of an operator."""
    (_, rows, inputs), (_, _, hidden) = arrays["W"].shape, arrays["R"].shape
    cell: Any = {
        "LSTM": PeepholeLSTM,
        "GRU": lambda *sizes: GRU(*sizes, reset_after=False),
        "RNN": RNN,
    }[op_type](inputs, hidden)
    two_biases = arrays.get("B", np.zeros((2, 2 * rows), np.float32))[direction].reshape(2, rows)
    given = {
        "weight_x": arrays["W"][direction],
        "weight_h": arrays["R"][direction],
        "bias": two_biases.sum(axis=0),
    }
    with torch.no_grad():
        for name, weight in given.items():
            theirs = dict(zip(GATES[op_type], np.split(weight, len(GATES[op_type])), strict=True))
            for gate, block in cell.blocks(getattr(cell, name)).items():
                block.copy_(torch.from_numpy(theirs[gate]))
        if "P" in arrays:
            peepholes = np.split(arrays["P"][direction], 3)
            for gate, weight in zip(("input", "output", "forget"), peepholes, strict=True):
                getattr(cell, f"peephole_{gate}").copy_(torch.from_numpy(weight))
    return cell


def run(cell: Gated[Any, Any], arrays: Arrays, direction: int, backward: bool) -> tuple[Any, Any]:
    """Outputs `[T, B, H]` in the order of the inputs, and the last state."""
    x, start = torch.from_numpy(arrays["X"]), cell.initial_state(arrays["X"].shape[1])
    for segment, name in zip(start._fields, ("initial_h", "initial_c"), strict=False):
        if name in arrays:
            start = start._replace(**{segment: torch.from_numpy(arrays[name][direction])})
    output, last = unroll(cell, x.flip(0) if backward else x, start)
    return output.flip(0) if backward else output, last


@pytest.mark.parametrize("name", CASES)
def test_a_cell_gives_what_the_standard_says(name: str) -> None:
    case = CASES[name]
    (node,) = case.model.graph.node
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    ((given, expected),) = case.data_sets
    arrays = dict(zip((i for i in node.input if i), given, strict=True))
    by_batch = attributes.get("layout", 0)
    if by_batch:
        arrays["X"] = arrays["X"].swapaxes(0, 1)
    if "sequence_lens" in arrays:
        assert (arrays["sequence_lens"] == len(arrays["X"])).all()

    backward = {b"forward": [False], b"reverse": [True], b"bidirectional": [False, True]}
    runs = [
        run(cell_of(node.op_type, arrays, direction), arrays, direction, back)
        for direction, back in enumerate(backward[attributes.get("direction", b"forward")])
    ]
    found = {"Y": torch.stack([output for output, _ in runs], dim=1)}  # [T, directions, B, H]
    found |= {"Y_h": torch.stack([last.hidden for _, last in runs])}
    if node.op_type == "LSTM":
        found |= {"Y_c": torch.stack([last.cell for _, last in runs])}
    if by_batch:  # [B, T, directions, H] and [B, directions, H]
        found = {"Y": found["Y"].permute(2, 0, 1, 3), "Y_h": found["Y_h"].swapaxes(0, 1)}
    for output, theirs in zip((o for o in node.output if o), expected, strict=True):
        assert_close(found[output].detach(), torch.from_numpy(theirs), rtol=1e-5, atol=1e-6)


def test_the_standard_has_a_case_for_each_of_the_things_that_differ() -> None:
    assert {case.model.graph.node[0].op_type for case in CASES.values()} == set(GATES)
    assert sum("P" in case.model.graph.node[0].input for case in CASES.values()) == 1


@pytest.mark.parametrize("reset_after", [True, False])
def test_both_grus_are_those_of_the_operator(reset_after: bool) -> None:
    """No case of the standard sets `linear_before_reset`; its reference implementation knows it."""
    torch.manual_seed(0)
    cell = drawn(GRU(5, 4, reset_after=reset_after).double())
    x, state = random_inputs(cell, 6, 3), random_state(cell, 3)

    def theirs(parameter: torch.Tensor) -> NDArray[np.float64]:
        blocks = cell.blocks(parameter.detach())
        return torch.cat([blocks[gate] for gate in GATES["GRU"]]).numpy()

    recurrent_bias = torch.zeros(12, dtype=torch.float64)
    if cell.bias_h is not None:
        cell.blocks(recurrent_bias)["candidate"].copy_(cell.bias_h.detach())
    _, last = GRUHelper(
        X=x.detach().numpy(),
        W=theirs(cell.weight_x)[None],
        R=theirs(cell.weight_h)[None],
        B=np.concatenate([theirs(cell.bias), theirs(recurrent_bias)])[None],
        initial_h=state.hidden.detach().numpy()[None],
        linear_before_reset=int(reset_after),
    ).step()
    assert_close(unroll(cell, x, state)[1].hidden, torch.from_numpy(last)[0], rtol=1e-10, atol=1e-10)
