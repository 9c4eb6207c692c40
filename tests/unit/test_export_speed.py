import pytest

from cli.bench_export import tables
from export import timing
from export.bare import bare_model
from export.metadata import contract_of
from export.speed import CELLS, speeds
from export.walk import nodes_of
from model.costs import COSTS


def test_every_cell_is_measured_against_the_fused_lstm_and_its_work_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timing, "SECONDS", 0.0)
    told: list[str] = []
    found = list(speeds(told.append, ((8,), (2,), (1, 3))))

    assert {one.cell for one in found} == set(CELLS)
    assert len(told) == len(found) == 2 * len(CELLS)
    assert all(one.ratio > 0 and one.seconds > 0 for one in found)
    work = {one.cell: one.work for one in found}
    assert (work["lstm"], work["coupled"], work["rnn"], work["lstm, as a Scan"]) == (1, 0.75, 0.25, 1)
    assert {name.removesuffix(", as a Scan") for name in CELLS} == COSTS.keys() - {"child-sum, a node"}
    text = tables(found)
    assert text.startswith("| H = 8 | B=2 T=1 | B=2 T=3 |")
    assert len(text.splitlines()) == 2 + len(CELLS)


def test_what_is_called_a_scan_is_one_and_the_other_is_not() -> None:
    kinds = {
        name: {node.op_type for node in nodes_of(bare_model([CELLS[name](8)]).graph)}
        for name in ("lstm", "lstm, as a Scan")
    }
    assert "LSTM" in kinds["lstm"]
    assert "Scan" not in kinds["lstm"]
    assert "Scan" in kinds["lstm, as a Scan"]
    assert "LSTM" not in kinds["lstm, as a Scan"]


@pytest.mark.parametrize(("units", "operator"), [(128, "LSTM"), (129, "Scan")])
def test_a_coupled_cell_is_an_operator_as_long_as_its_fourth_gate_is_cheap(units: int, operator: str) -> None:
    kinds = {node.op_type for node in bare_model([CELLS["coupled"](units)]).graph.node}
    assert kinds & {"LSTM", "Scan"} == {operator}


def test_a_bare_model_has_the_ports_of_its_first_and_last_layer() -> None:
    contract = contract_of(bare_model([CELLS["projected"](8)]))
    assert (contract.inputs[0].shape, contract.outputs[0].shape) == ((8,), (4,))
