"""Networks that need all of their input: torch = ONNX, together = alone, padding changes nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from carousel.contract import Port
from cli.main import main
from export.door import VerificationError, write_whole
from export.errors import ExportError
from export.metadata import contract_of
from export.options import PLAIN
from export.walk import nodes_of
from export.whole import Origin, Whole, whole_model
from export.whole_checks import joined, random_forest
from model.bidirectional import Bidirectional
from model.cells.child_sum import ChildSumLSTM
from model.cells.lstm import LSTM
from model.layer import Conditions
from model.model_recipe import GRUCell, PlainCell, ProjectedCell, RNNCell, ZoneoutRecipe
from model.tree import Forest, over_forest

ORIGIN = Origin("test", "5eed" * 8)
EMBEDDING, HIDDEN, CLASSES, SYMBOLS = 4, 6, 3, tuple("abcdefg")
CELLS: dict[str, Any] = {
    "lstm": PlainCell(kind="lstm"),
    "peephole": PlainCell(kind="peephole"),
    "coupled": PlainCell(kind="coupled"),
    "highway-time": PlainCell(kind="highway-time"),
    "projected": ProjectedCell(kind="projected", projection=5),
    "highway-depth": PlainCell(kind="highway-depth"),
    "gru": GRUCell(kind="gru"),
    "rnn": RNNCell(kind="rnn"),
}


def fresh(module: nn.Module) -> nn.Module:
    """With biases that are not all the same, so that a wrong order of gates shows."""
    for parameter in module.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, -0.5, 0.5)
    return module.eval()


def both_ways(cell: Any = CELLS["lstm"], *, layers: int = 2, each: bool = True, zoned: bool = False) -> Whole:
    torch.manual_seed(0)
    conditions = Conditions(zoneout=ZoneoutRecipe(hidden=0.2)) if zoned else Conditions()
    network = fresh(Bidirectional(EMBEDDING, HIDDEN, layers, cell=cell, conditions=conditions))
    return Whole(
        nn.Embedding(len(SYMBOLS), EMBEDDING),
        network,
        nn.Linear(network.width, CLASSES),
        Port(name="tokens", dtype="int64", vocabulary=SYMBOLS),
        Port(name="y", dtype="float32", shape=(CLASSES,), axes=("batch", "time") if each else ("batch",)),
        ORIGIN,
        max_steps=64,
    )


def tree(most_children: int = 3) -> Whole:
    torch.manual_seed(0)
    return Whole(
        nn.Linear(5, EMBEDDING),
        fresh(ChildSumLSTM(EMBEDDING, HIDDEN)),
        nn.Linear(HIDDEN, CLASSES),
        Port(name="x", dtype="float32", shape=(5,), axes=("node",)),
        Port(name="y", dtype="float32", shape=(CLASSES,), axes=("node",)),
        ORIGIN,
        most_children,
        max_steps=64,
    )


def session(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def kinds(whole: Whole) -> list[str]:
    return [node.op_type for node in nodes_of(whole_model(whole).graph)]


@pytest.mark.parametrize("each", [True, False], ids=["a step", "a row"])
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_reads_both_ways_and_rows_do_not_feel_each_other(
    cell: str, each: bool, tmp_path: Path
) -> None:
    written = write_whole(both_ways(CELLS[cell], each=each), tmp_path / "both" / "1")

    contract = written.contract
    assert (contract.kind, contract.format, contract.planes) == ("whole", 3, ())
    assert contract.outputs[0].axes == (("batch", "time") if each else ("batch",))
    assert contract.invariant


def test_zoneout_is_its_expectation_in_both_directions(tmp_path: Path) -> None:
    assert write_whole(both_ways(zoned=True), tmp_path / "both" / "1").contract.invariant


def test_a_layer_is_one_operator_a_direction_where_that_is_exact_and_else_one_scan() -> None:
    assert (kinds(both_ways()).count("LSTM"), kinds(both_ways()).count("Scan")) == (4, 0)
    stepped = kinds(both_ways(CELLS["highway-time"]))
    assert (stepped.count("LSTM"), stepped.count("Scan"), stepped.count("ReverseSequence")) == (0, 4, 4)


def test_what_no_output_needs_is_not_in_the_graph() -> None:
    graph = whole_model(both_ways(CELLS["highway-time"], each=False)).graph
    made = {name for node in graph.node for name in node.output}
    read = {name for node in nodes_of(graph) for name in node.input}
    assert (
        "layer0.start.hidden.next" not in made
    )  # the upper layer reads steps, and nobody where the lower one ended
    assert {weight.name for weight in graph.initializer} <= read


@pytest.mark.parametrize("cell", ["lstm", "highway-time"])
def test_no_number_beyond_a_row_s_end_changes_any_bit(cell: str, tmp_path: Path) -> None:
    run = session(write_whole(both_ways(CELLS[cell]), tmp_path / "both" / "1").file)
    rng = np.random.default_rng(1)
    tokens, lengths = rng.integers(7, size=(5, 9)), np.array([9, 1, 4, 8, 2], np.int32)
    (found,) = run.run(None, {"tokens": tokens, "lengths": lengths})
    for row, length in enumerate(lengths):
        tokens[row, length:] = 6 - tokens[row, length:]
    (other,) = run.run(None, {"tokens": np.pad(tokens, ((0, 0), (0, 3))), "lengths": lengths})
    for row, length in enumerate(lengths):
        assert found[row, :length].tobytes() == other[row, :length].tobytes()
        assert np.ptp(found[row, :length]) > 0


def test_the_reader_from_the_end_starts_at_each_row_s_own_end(tmp_path: Path) -> None:
    whole = both_ways(layers=1, each=False)
    run = session(write_whole(whole, tmp_path / "both" / "1").file)
    tokens = np.array([[1, 2, 3, 4], [5, 1, 0, 0]])
    (found,) = run.run(None, {"tokens": tokens, "lengths": np.array([4, 2], np.int32)})
    with torch.no_grad():
        ahead, back = (cells[0] for cells in (whole.network.from_start, whole.network.from_end))
        x = whole.before(torch.tensor([5, 1]))
        ends = []
        for cell, order in ((ahead, x), (back, x.flip(0))):
            state = cell.initial_state(1)
            for x_I in order:
                _, state = cell.step(x_I[None], state)
            ends.append(state.hidden)
        expected = whole.head(torch.cat(ends, dim=1))[0]
    np.testing.assert_allclose(found[1], expected.numpy(), atol=1e-6)


def test_a_tree_is_one_scan_and_a_node_is_the_same_alone_and_in_a_forest(tmp_path: Path) -> None:
    written = write_whole(tree(), tmp_path / "tree" / "1")

    assert kinds(tree()).count("Scan") == 1
    assert written.contract.invariant
    assert written.contract.lengths == ""
    assert [port.name for port in written.contract.inputs] == ["x", "children"]
    assert written.contract.inputs[1].earlier_nodes


@pytest.mark.parametrize(
    "children",
    [
        [[-1, -1, -1]],
        [[-1, -1, -1], [0, -1, -1], [-1, 1, -1], [-1, -1, 2]],
        [[-1, -1, -1], [-1, -1, -1], [-1, -1, -1], [0, 1, 2], [-1, -1, -1], [-1, 4, 3]],
    ],
    ids=["one node", "a chain", "a tree"],
)
def test_a_tree_is_what_torch_makes_of_it(children: list[list[int]], tmp_path: Path) -> None:
    whole = tree()
    run = session(write_whole(whole, tmp_path / "tree" / "1").file)
    x = np.random.default_rng(0).normal(size=(len(children), 5)).astype(np.float32)
    (found,) = run.run(None, {"x": x, "children": np.array(children, np.int32)})
    with torch.no_grad():
        states = over_forest(whole.network, whole.before(torch.tensor(x)), Forest(torch.tensor(children)))
        expected = whole.head(states.hidden)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


def test_a_chain_is_the_lstm(tmp_path: Path) -> None:
    whole = tree(most_children=1)
    run = session(write_whole(whole, tmp_path / "tree" / "1").file)
    x = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    chain = np.arange(-1, 8, dtype=np.int32)[:, None]
    (found,) = run.run(None, {"x": x, "children": chain})
    lstm = LSTM(EMBEDDING, HIDDEN)
    with torch.no_grad():
        for name, parameter in lstm.named_parameters():
            blocks = whole.network.blocks(getattr(whole.network, name))
            parameter.copy_(torch.cat([blocks[gate] for gate in LSTM.gate_names]))
        state, outputs = lstm.initial_state(1), []
        for x_I in whole.before(torch.tensor(x)):
            output, state = lstm.step(x_I[None], state)
            outputs.append(output)
        expected = whole.head(torch.cat(outputs))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


def test_forests_for_the_checks_are_forests() -> None:
    rng = np.random.default_rng(0)
    forests = [random_forest(nodes, 3, rng) for nodes in (1, 2, 40)]
    both = joined(forests)
    assert len(both) == 43
    assert len(Forest(torch.tensor(both.astype(np.int64))).roots) == sum(
        len(Forest(torch.tensor(one.astype(np.int64))).roots) for one in forests
    )


@pytest.mark.parametrize("whole", [both_ways, tree])
def test_a_wrong_weight_in_the_graph_is_found_and_nothing_is_written(
    whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*arguments: Any) -> onnx.ModelProto:
        model = whole_model(*arguments)
        weight = next(one for one in model.graph.initializer if one.name.startswith("head.weight"))
        values = onnx.numpy_helper.to_array(weight) * np.float32(1.001)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return model

    monkeypatch.setattr("export.door.whole_model", wrong)
    with pytest.raises(VerificationError, match="nothing written: torch, random"):
        write_whole(whole(), tmp_path / "whole" / "1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("whole", [both_ways, tree])
def test_inspect_and_verify_understand_them(
    whole: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_whole(whole(), tmp_path / "whole" / "1")
    assert main(["verify", str(tmp_path / "whole")]) == 0
    assert "= each" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "whole")]) == 0
    out = capsys.readouterr().out
    assert "whole graph" in out
    assert "needs all of its input at once" in out


def test_for_cuda_every_operator_has_a_kernel_there(tmp_path: Path) -> None:
    options = PLAIN._replace(target="cuda")
    for name, whole in {
        "both": both_ways(),
        "scan": both_ways(CELLS["highway-time"]),
        "tree": tree(),
    }.items():
        assert write_whole(whole, tmp_path / name / "1", options).contract.runs_on == "cuda"


def test_other_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="expected no --precision, no --observe"):
        write_whole(tree(), tmp_path / "tree" / "1", PLAIN._replace(observe=True))


def test_a_contract_says_where_nodes_come_from() -> None:
    contract = contract_of(whole_model(tree(4)))
    assert [(port.shape, port.axes, port.earlier_nodes) for port in contract.inputs] == [
        ((5,), ("node",), False),
        ((4,), ("node",), True),
    ]
