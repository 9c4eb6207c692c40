import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from carousel.contract import Contract
from cli.checks import print_checks
from cli.main import main
from export.draft import IR_VERSION, OPSET
from export.report import Check, Verification
from model.checkpoint import Checkpoint, Document, weights, write_checkpoint
from tests.models import tiny_characters, tiny_checkpoint


def save(checkpoint: Checkpoint, file: Path) -> Path:
    known = {
        field.name: getattr(checkpoint, field.name) for field in fields(checkpoint) if field.name != "model"
    }
    write_checkpoint(file, Document(**known), weights(checkpoint.model))
    return file


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save(tiny_checkpoint(), tmp_path / "best.safetensors")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_characters(tmp_path_factory.mktemp("models"), layers=2)


def test_export_writes_the_model_and_says_what_was_measured(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(checkpoint), "--out", str(tmp_path / "models" / "text")]) == 0

    file = tmp_path / "models" / "text" / "1" / "model.onnx"
    out = capsys.readouterr().out
    assert file.is_file()
    assert f"wrote {file}" in out
    assert "results are bit-identical" in out
    for told in (
        "torch, random tokens: states",
        "torch in float64: outputs",
        "ragged batch = each row alone",
    ):
        assert told in out
    assert "FAILED" not in out


def test_export_takes_a_run_s_folder_and_counts_versions_up(checkpoint: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert main(["export", str(checkpoint.parent), "--out", str(tmp_path / "text")]) == 0

    assert sorted(path.name for path in (tmp_path / "text").iterdir()) == ["1", "2"]


def test_export_refuses_to_overwrite_a_version_and_leaves_it_alone(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "text" / "3" / "model.onnx"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"in use")

    assert main(["export", str(checkpoint), "--out", str(tmp_path / "text"), "--version", "3"]) == 1

    assert kept.read_bytes() == b"in use"
    assert (
        one_line(capsys) == f"carousel export: {kept.parent} exists already; versions are never overwritten"
    )


def test_export_shows_the_table_of_a_model_it_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chaotic = tiny_checkpoint(hidden=64)
    with torch.no_grad():
        chaotic.model.stack.cells[0].weight_h.mul_(10)
    file = save(chaotic, tmp_path / "chaotic.safetensors")

    assert main(["export", str(file), "--out", str(tmp_path / "text")]) == 1

    captured = capsys.readouterr()
    assert "FAILED" in captured.out
    assert captured.err.startswith("carousel export: nothing written: torch, ")
    assert not (tmp_path / "text").exists()


def test_a_check_that_decides_about_a_promise_does_not_fail_and_is_printed_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept, broken = Check("chunks = one run", 0, 0), Check("batch = alone", 3, 0)
    told = Check("batch = alone", 3, None)

    def results(*required: Check) -> list[str]:
        print_checks(Verification(required, (kept, broken)))
        return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()][1:]

    unpromised = ["chunks = one run 0 0 passed", "batch = alone 3 0 no"]
    assert results() == unpromised
    assert results(Check("weights", 1, 0)) == ["weights 1 0 FAILED", *unpromised]
    assert results(kept, broken) == ["chunks = one run 0 0 passed", "batch = alone 3 0 FAILED"]
    assert results(kept, told) == ["chunks = one run 0 0 passed", "batch = alone 3 told"]


def test_export_to_a_place_that_cannot_be_written_says_so_and_leaves_what_is_there(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").write_text("a file where a folder should be")

    assert main(["export", str(checkpoint), "--out", str(tmp_path / "models" / "text")]) == 1

    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"carousel export: {tmp_path / 'models' / 'text'}: Not a directory"
    assert (tmp_path / "models").read_text() == "a file where a folder should be"


def test_a_refused_export_leaves_the_one_before_it_and_nothing_else(checkpoint: Path, tmp_path: Path) -> None:
    assert main(["export", str(checkpoint), "--out", str(tmp_path / "text")]) == 0
    before = (tmp_path / "text" / "1" / "model.onnx").read_bytes()
    chaotic = tiny_checkpoint(hidden=64)
    with torch.no_grad():
        chaotic.model.stack.cells[0].weight_h.mul_(10)

    assert main(["export", str(save(chaotic, checkpoint)), "--out", str(tmp_path / "text")]) == 1

    assert [path.name for path in (tmp_path / "text").rglob("*")] == ["1", "model.onnx"]
    assert (tmp_path / "text" / "1" / "model.onnx").read_bytes() == before


def test_export_names_a_checkpoint_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path / "nothing"), "--out", str(tmp_path / "text")]) == 1

    assert str(tmp_path / "nothing") in one_line(capsys)


def test_inspect_says_what_the_model_promises(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(model.parent.parent)]) == 0

    out = capsys.readouterr().out
    for told in (
        str(model),
        f"opset {OPSET}, IR {IR_VERSION}; names, types and shapes agree with the contract",
        "LSTM 2",
        "lstm x 2",
        "float32[64] a session, state to state_out",
        "yes, bit-identical",
        "layer1.cell",
        "29, unknown is 0",
        "bits_per_character = 4.75",
        'data = {"source": "stdlib"}',
        "warnings  none",
    ):
        assert told in out


def test_export_takes_its_options_from_the_command_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "text")]
    assert main(["export", str(checkpoint), *out, "--observe", "--for", "cuda"]) == 0
    assert main(["inspect", str(tmp_path / "text")]) == 0

    told = capsys.readouterr().out
    assert "layer0.forget.mean, layer0.forget.saturated" in told
    assert "step graph in arena form" in told
    assert "cuda, fp32" in told


def test_export_refuses_sessions_that_change_each_other_unless_it_is_allowed(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "text")]
    assert main(["export", str(checkpoint), *out, "--precision", "int8-dynamic"]) == 1

    assert "expected --allow-batch-dependent with it" in one_line(capsys)
    assert not (tmp_path / "text").exists()


def test_inspect_warns_of_what_cuda_would_leave_to_the_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(tiny_characters(tmp_path, cell="peephole"))]) == 0

    assert "on CUDA this would run on the CPU, with copies there and back: LSTM with peepholes" in (
        capsys.readouterr().out
    )


def test_inspect_as_json_is_the_contract(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(model.parent), "--json"]) == 0

    out = capsys.readouterr().out
    assert Contract.from_json(out).invariant
    assert json.loads(out)["kind"] == "step"


@pytest.mark.parametrize("name", ["missing.onnx", "cut.onnx", "empty"])
def test_inspect_names_what_it_cannot_read_in_one_line(
    model: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.onnx").write_bytes(model.read_bytes()[:-100])

    assert main(["inspect", str(tmp_path / name)]) == 1

    assert one_line(capsys).startswith(f"carousel inspect: {tmp_path / name}: ")


def test_a_symbol_that_would_steer_a_terminal_is_shown_as_a_question_mark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tiny_checkpoint()
    checkpoint.metrics["\x1b[2J"] = 1.0
    file = save(checkpoint, tmp_path / "odd.safetensors")
    assert main(["export", str(file), "--out", str(tmp_path / "odd")]) == 0

    assert main(["inspect", str(tmp_path / "odd")]) == 0

    out = capsys.readouterr().out
    assert "?[2J = 1" in out
    assert "\x1b" not in out


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line
