"""Less than float32: measured on the model's own data, or not written."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from cli.main import main
from export import validation
from export.door import VerificationError, export_checkpoint
from export.errors import ExportError
from export.file import read_model
from export.options import Options
from export.quantise import rounded
from export.runtime import OnnxStep
from export.validation import bits_per_character
from export.walk import nodes_of
from model.checkpoint import Checkpoint
from model.data.corpus import load_corpus
from model.recipe import DataRecipe
from model.tasks.characters import bits, evaluate
from tests.models import tiny_checkpoint

TEXT = "the quick brown fox jumps over the lazy dog and runs away\n" * 400


def with_text(folder: Path, **settings: object) -> Checkpoint:
    """A checkpoint whose recipe names a text that is there."""
    (folder / "text.txt").write_text(TEXT)
    data = {"source": str(folder / "text.txt")}
    made = tiny_checkpoint(hidden=24, layers=2, **settings)
    sha = hashlib.sha256(TEXT.encode()).hexdigest()
    return replace(made, recipe={**made.recipe, "data": data}, data_sha256=sha)


@pytest.mark.parametrize(
    ("options", "operator"),
    [
        (Options(precision="int8-weights"), "MatMulNBits"),
        (Options(precision="int8-dynamic", batch_dependent=True), "DynamicQuantizeLSTM"),
        (Options(target="cuda", precision="fp16"), "LSTM"),
    ],
    ids=lambda one: getattr(one, "precision", None),
)
def test_a_smaller_model_is_measured_on_the_held_out_text_and_verifies_by_itself(
    tmp_path: Path, options: Options, operator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    written = export_checkpoint(with_text(tmp_path), tmp_path / "text", options=options)

    contract, kinds = written.contract, {node.op_type for node in nodes_of(onnx.load(written.file).graph)}
    (metric,) = [c for c in written.verification.required if c.check.startswith("bits per character")]
    assert operator in kinds
    assert contract.precision == options.precision
    assert contract.batch_dependent == (options.precision == "int8-dynamic")
    assert contract.planes[0].dtype == "float32"
    assert 0 < abs(metric.measured) < 0.01
    assert main(["verify", str(written.file)]) == 0
    assert main(["inspect", str(written.file)]) == 0
    assert options.precision in capsys.readouterr().out


def test_weights_of_8_bits_keep_the_promise_of_the_same_bits_in_any_batch(tmp_path: Path) -> None:
    options = Options(precision="int8-weights")
    assert export_checkpoint(with_text(tmp_path), tmp_path / "text", options=options).contract.invariant


def test_a_file_of_8_bits_is_smaller(tmp_path: Path) -> None:
    checkpoint = with_text(tmp_path)
    sizes = [
        export_checkpoint(checkpoint, tmp_path / "text", options=Options(precision=precision))
        .file.stat()
        .st_size
        for precision in ("fp32", "int8-weights")
    ]
    assert sizes[1] < 0.65 * sizes[0]  # of so small a model a third is the graph


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (Options(precision="int8-dynamic"), "expected --allow-batch-dependent with it"),
        (Options(precision="fp16"), "expected --for cuda with it"),
        (Options(target="cuda", precision="int8-dynamic", batch_dependent=True), "no kernels on CUDA"),
    ],
)
def test_what_cannot_be_or_was_not_agreed_to_is_refused(tmp_path: Path, options: Options, line: str) -> None:
    with pytest.raises(ExportError, match=line):
        export_checkpoint(tiny_checkpoint(), tmp_path / "text", options=options)
    assert list(tmp_path.iterdir()) == []


def test_another_text_than_the_model_was_trained_with_is_refused(tmp_path: Path) -> None:
    checkpoint = replace(with_text(tmp_path), data_sha256="0" * 64)

    with pytest.raises(ExportError, match="expected the text that the model was trained with, sha256 0000"):
        export_checkpoint(checkpoint, tmp_path / "text", options=Options(precision="int8-weights"))


def test_what_costs_too_much_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "ALLOWED_BITS", -1.0)

    with pytest.raises(VerificationError, match="bits per character more than in float32: "):
        export_checkpoint(with_text(tmp_path), tmp_path / "text", options=Options(precision="int8-weights"))
    assert not (tmp_path / "text").exists()


def test_the_metric_is_the_one_that_training_reports(tmp_path: Path) -> None:
    checkpoint = with_text(tmp_path)
    found = read_model(export_checkpoint(checkpoint, tmp_path / "text").file)
    tokens = load_corpus(DataRecipe.model_validate(checkpoint.recipe["data"])).validation[:513]

    ours = bits_per_character(OnnxStep(found.model, found.contract), found.contract, tokens.numpy())

    assert ours == pytest.approx(
        bits(evaluate(checkpoint.model, tokens, streams=validation.STREAMS)), rel=1e-4
    )


def test_rounded_weights_are_within_half_a_step_of_what_they_were(tmp_path: Path) -> None:
    weights = torch.randn(70, 5, generator=torch.Generator().manual_seed(0)).numpy()
    weights[:, 2] = 0  # a block of nothing has no scale
    numbers, scales = rounded(weights, 16)

    back = ((numbers.astype(np.float32) - 128) * scales[:, :, None]).reshape(5, -1)[:, :70].T
    assert (np.abs(back - weights) <= np.repeat(scales, 16, axis=1)[:, :70].T / 2 + 1e-7).all()
