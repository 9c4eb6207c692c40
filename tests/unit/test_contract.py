"""The contract document: read strictly, and in agreement with itself."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from carousel.contract import Arena, Contract, ContractError, Observed, Port, layout_hash
from carousel.graph import TensorType, disagreements, graph_inputs, graph_outputs
from tests.fakes import contract


def test_a_contract_survives_its_own_json() -> None:
    assert Contract.from_json(contract().to_json()) == contract()


def test_what_format_1_can_say_is_written_in_format_1() -> None:
    document = json.loads(contract().to_json())
    assert document["format"] == 1
    assert document.keys().isdisjoint({"arena", "runs_on", "precision", "batch_dependent", "observed"})


ARENA = {"form": "arena", "arena": Arena(read_rows="read_rows", write_rows="write_rows", finite="finite")}
OLD_ARENA = {"read_rows": "read_rows", "write_rows": "write_rows"}
OBSERVED = Observed(output="observed", statistics=("layer0.forget.mean", "layer0.cell.norm"))


def test_what_it_cannot_say_is_written_in_a_newer_format_and_survives() -> None:
    for number, said in ((2, {}), (4, ARENA)):
        newer = contract().model_copy(
            update={"format": number, "runs_on": "cuda", "observed": OBSERVED, **said}
        )
        assert Contract.from_json(newer.to_json()) == newer
        assert newer.in_oldest_format() == newer


def test_the_arena_form_takes_all_rows_and_says_which() -> None:
    arena = contract().model_copy(update=ARENA)
    inputs, outputs = graph_inputs(arena), graph_outputs(arena)
    assert inputs["state"] == TensorType("float32", ("N", 1))
    assert inputs["read_rows"] == inputs["write_rows"] == TensorType("int64", ("B",))
    assert outputs["state_out"] == TensorType("float32", ("N", 1))
    assert outputs["finite"] == TensorType("float32", ("B",))
    assert arena.layout_hash() == contract().layout_hash()  # the same rows, elsewhere


def test_what_is_observed_is_an_output_more() -> None:
    observed = contract().model_copy(update={"observed": OBSERVED})
    assert graph_outputs(observed)["observed"] == TensorType("float32", ("B", 2))


def changed(change: Callable[[dict[str, Any]], Any]) -> str:
    document = json.loads(contract().to_json())
    change(document)
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{", "not a JSON object"),
        ("[]", "not a JSON object"),
        ("7", "not a JSON object"),
        (changed(lambda d: d.update(format=5)), "has format 5, this release reads format 1 to 4"),
        (changed(lambda d: d.update(runs_on="cuda")), "runs_on needs format 2"),
        (changed(lambda d: d.update(format=2, form="arena")), "form arena without an arena"),
        *(
            (
                changed(lambda d, old=old: d.update(format=old, form="arena", arena=OLD_ARENA)),
                f"has an arena of format {old}, this release reads those of format 4; export it again",
            )
            for old in (2, 3)
        ),
        (changed(lambda d: d.pop("format")), "has format None"),
        (changed(lambda d: d.update(tusk=d.pop("task"))), "tusk: unknown key"),
        (changed(lambda d: d.pop("task")), "task: expected a value, came none"),
        (
            changed(lambda d: d.update(kind="leap")),
            r"kind: Input should be 'step', 'whole' or 'priming' \(came: 'leap'\)",
        ),
        (changed(lambda d: d["planes"][0].update(size=2)), "segments do not add up to the state size 2"),
        (changed(lambda d: d.update(initial=[0.0, 0.0])), "initial row has 2 values, expected 1"),
        (changed(lambda d: d.update(lengths="x")), "a name is used twice"),
        (changed(lambda d: d.update(recurrence="gru x 9")), "signature does not belong to this layout"),
        (changed(lambda d: d["inputs"][0].update(dtype="float8")), "inputs.0.dtype"),
        (changed(lambda d: d["outputs"][0].update(shape=[0])), "outputs.0.shape.0"),
        (changed(lambda d: d.update(invariant="yes")), "invariant: Input should be a valid boolean"),
    ],
)
def test_a_document_that_is_wrong_is_one_line_that_says_where(text: str, line: str) -> None:
    with pytest.raises(ContractError, match=line) as caught:
        Contract.from_json(text)
    assert "\n" not in str(caught.value)


def test_a_port_and_its_vocabulary_agree() -> None:
    with pytest.raises(ValueError, match="unknown token 2 is outside"):
        Port(name="t", dtype="int64", vocabulary=("a", "b"), unknown=2)
    with pytest.raises(ValueError, match="2 symbols for an output of shape"):
        Port(name="t", dtype="float32", shape=(3,), vocabulary=("a", "b"))


def test_the_layout_hash_changes_with_whatever_gives_a_row_its_meaning() -> None:
    plain = contract()
    for change in (
        {"recurrence": "gru x 1"},
        {"outputs": (Port(name="y", dtype="float32", shape=(2,)),)},
        {"segments": (plain.segments[0].model_copy(update={"name": "layer0.cell"}),)},
    ):
        assert plain.model_copy(update=change).layout_hash() != plain.layout_hash()
    assert plain.model_copy(update={"max_steps": 7}).layout_hash() == plain.layout_hash()


def test_a_graph_is_held_against_its_contract() -> None:
    promised = contract()
    inputs, outputs = graph_inputs(promised), graph_outputs(promised)
    renamed = {"x": TensorType("float32", ("batch", "time"))}
    assert disagreements(promised, {**inputs, **renamed}, outputs) == []
    for wrong in (
        TensorType("float64", ("B", "T")),
        TensorType("float32", ("B", "T", 2)),
        TensorType("float32", (1, "T")),
    ):
        (line,) = disagreements(promised, {**inputs, "x": wrong}, outputs)
        assert line.startswith("input 'x' is float32[B, T] in the contract")
    assert len(disagreements(promised, inputs, {**outputs, "z": outputs["y"]})) == 1
    assert len(disagreements(promised, {}, outputs)) == len(inputs)


PORTS = ("inputs", "outputs")


def whole(**changes: Any) -> dict[str, Any]:
    """The document of a graph over the nodes of trees."""
    x = {"name": "x", "dtype": "float32", "axes": ["node"]}
    children = {"name": "children", "dtype": "int32", "shape": [2], "axes": ["node"], "earlier_nodes": True}
    document = json.loads(contract().to_json())
    document |= {"format": 3, "kind": "whole", "planes": [], "segments": [], "lengths": ""}
    document |= {"inputs": [x, children], "outputs": [{"name": "y", "dtype": "float32", "axes": ["node"]}]}
    document |= changes
    parts = [tuple(Port.model_validate_json(json.dumps(port)) for port in document[key]) for key in PORTS]
    document["signature"]["layout"] = layout_hash(document["recurrence"], *parts, (), ())
    return document


def test_a_graph_of_nodes_has_neither_lengths_nor_planes() -> None:
    nodes = Contract.from_json(json.dumps(whole()))
    assert graph_inputs(nodes) == {
        "x": TensorType("float32", ("N",)),
        "children": TensorType("int32", ("N", 2)),
    }
    assert graph_outputs(nodes) == {"y": TensorType("float32", ("N",))}
    assert nodes.state_size == 0
    assert Contract.from_json(nodes.to_json()) == nodes


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"format": 2}, "axes needs format 3"),
        ({"lengths": "lengths"}, "a time axis is missing beside lengths"),
        ({"inputs": [{"name": "x", "dtype": "float32"}]}, "a time axis without lengths"),
        ({"kind": "priming"}, "kind priming without primes"),
        ({"kind": "step"}, "expected one plane that is written"),
        (
            {"kind": "step", "planes": json.loads(contract().to_json())["planes"]},
            "ports of a step graph have the axes batch and time",
        ),
    ],
)
def test_what_a_kind_cannot_have_is_told(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ContractError, match=line):
        Contract.from_json(json.dumps(whole(**changes)))


def test_a_contract_is_written_in_the_oldest_format_that_says_it() -> None:
    newest = contract().model_copy(update={"format": 3})
    assert newest.in_oldest_format().format == 1
    assert newest.model_copy(update={"runs_on": "cuda"}).in_oldest_format().format == 2
    port = newest.outputs[0].model_copy(update={"feeds": "x"})
    fed = newest.model_copy(update={"outputs": (port,)})
    assert fed.in_oldest_format().format == 3
    assert fed.layout_hash() == contract().layout_hash()  # what is fed is no part of the layout


def test_a_port_without_axes_of_its_own_hashes_as_it_always_did() -> None:
    plain = contract()
    known = [plain.recurrence]
    for part in (*plain.inputs, *plain.outputs, *plain.planes, *plain.segments):
        document = part.model_dump(mode="json")
        known.append(
            {key: document[key] for key in document if key not in ("axes", "feeds", "earlier_nodes")}
        )
    expected = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:32]
    assert plain.layout_hash() == expected
