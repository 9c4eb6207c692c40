"""`carousel verify`: what a file alone gives away, told in one line and with exit code 1."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from carousel.contract import METADATA_KEY
from cli.main import main
from export.characters import characters_model
from export.door import write_verified
from export.file import read_model
from export.metadata import contract_of, set_contract
from export.verify import verify_file
from tests.models import tiny_characters, tiny_checkpoint

Change = Callable[[onnx.ModelProto], None]


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_characters(tmp_path_factory.mktemp("fused"), layers=2, cell="peephole")


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_characters(tmp_path_factory.mktemp("scanned"), cell="highway-time")


def refusal(file: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["verify", str(file)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"carousel verify: {file}: ")
    return line


def changed(file: Path, folder: Path, change: Change) -> Path:
    model = onnx.load(file)
    change(model)
    onnx.save(model, folder / "changed.onnx")
    return folder / "changed.onnx"


def weight(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Change:
    def apply(model: onnx.ModelProto) -> None:
        (found,) = [one for one in model.graph.initializer if one.name == name]
        found.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(found).copy()), name))

    return apply


def spoilt(values: np.ndarray) -> np.ndarray:
    values.flat[3] = np.nan
    return values


def renamed(operator: str, to: str) -> Change:
    def apply(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            if node.op_type == operator:
                node.op_type = to

    return apply


def other_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 22


def newer_format(model: onnx.ModelProto) -> None:
    (entry,) = [entry for entry in model.metadata_props if entry.key == METADATA_KEY]
    entry.value = json.dumps({**json.loads(entry.value), "format": 5})


def stranger_in_the_step(model: onnx.ModelProto) -> None:
    (scan,) = [node for node in model.graph.node if node.op_type == "Scan"]
    (body,) = [attribute.g for attribute in scan.attribute if attribute.name == "body"]
    next(node for node in body.node if node.op_type == "Tanh").op_type = "Tank"


def said_to_run_on_cuda(model: onnx.ModelProto) -> None:
    set_contract(model, contract_of(model).model_copy(update={"format": 2, "runs_on": "cuda"}))


def leaning(model: onnx.ModelProto) -> None:
    """Every logit feels, a little, what its batch-mates are."""
    model.graph.node[-2].output[0] = "own_logits"
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axis"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1e-6), "little"))
    model.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["own_logits", "axis"], ["mean"], keepdims=1),
            helper.make_node("Mul", ["mean", "little"], ["leaning"]),
            helper.make_node("Add", ["own_logits", "leaning"], ["logits"]),
        ]
    )


@pytest.mark.parametrize("form", ["fused", "scanned"])
def test_what_was_exported_passes(
    form: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(request.getfixturevalue(form))]) == 0

    out = capsys.readouterr().out
    assert "ragged batch = each row alone" in out
    assert "FAILED" not in out


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            weight("layer1.R", lambda R: R[:, :-4]),
            r"layer1.R: expected shape \[1, 64, 16\], got \[1, 60, 16\]",
        ),
        (weight("layer0.P", lambda P: P[:, :-1]), r"layer0.P: expected shape \[1, 48\], got \[1, 47\]"),
        (weight("layer0.W", spoilt), r"weights that hold NaN or infinity: 1, allowed 0 \(layer0.W\)"),
        (renamed("LSTM", "LSTN"), "No Op registered for LSTN"),
        (other_opset, "expected IR 10 and opset 20"),
        (newer_format, "the contract has format 5, this release reads format 1 to 4"),
        (leaning, "ragged batch = each row alone"),
        (
            said_to_run_on_cuda,
            r"operators that CUDA would leave to the CPU: 1, allowed 0 \(LSTM with peepholes\)",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(
    fused: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Change, line: str
) -> None:
    assert re.search(line, refusal(changed(fused, tmp_path, change), capsys))


def test_the_step_in_a_scan_is_looked_at_too(
    scanned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(changed(scanned, tmp_path, stranger_in_the_step), capsys)
    assert "No Op registered for Tank" in line


@pytest.mark.parametrize("share", [0.2, 0.9, 0.999])
def test_a_file_cut_short_is_told(
    fused: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], share: float
) -> None:
    content = fused.read_bytes()
    (tmp_path / "cut.onnx").write_bytes(content[: int(share * len(content))])

    refusal(tmp_path / "cut.onnx", capsys)


def test_a_model_that_promises_nothing_is_told_what_was_found_and_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tiny_checkpoint()
    model = characters_model(checkpoint)
    leaning(model)
    file = write_verified(model, checkpoint.model, tmp_path / "leaning" / "1").file

    found = verify_file(read_model(file))

    assert found.failures == ()
    assert not found.invariant
    assert main(["verify", str(file)]) == 0
    out = capsys.readouterr().out
    assert all(out.count(check.check) == 1 for check in found.invariance)
    assert "FAILED" not in out
