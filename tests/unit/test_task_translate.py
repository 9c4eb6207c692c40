"""Pairs of sequences: what is read from files, what counts, and that writing is not given the answer."""

import gzip
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from export.door import export_checkpoint
from model.cells.gated import CellError
from model.checkpoint import load_checkpoint
from model.data import pairs
from model.data.pairs import BEGIN, END, load_pairs, split_names
from model.data.placed import DataError
from model.data_recipe import PairsData
from model.recipe import Recipe, TranslateRecipe
from model.tasks.task import NOT_COUNTED
from model.tasks.tasks import load_data
from model.tasks.translate import Translate, Translator
from model.training import Training


def recipe(
    data: dict[str, Any] | None = None, model: dict[str, Any] | None = None, **training: Any
) -> TranslateRecipe:
    plan = {
        "updates": 80,
        "streams": 32,
        "steps": 11,
        "learning_rate": 0.02,
        "evaluate_every": 80,
    } | training
    made = Recipe.from_document(
        {
            "task": "translate",
            "data": {"source": "reversal"} | (data or {}),
            "model": {"embedding": 16, "hidden": 48, "layers": 1} | (model or {}),
            "training": plan,
        }
    )
    assert isinstance(made, TranslateRecipe)
    return made


def test_a_reversal_is_to_be_written_from_its_end_and_no_string_is_in_two_parts() -> None:
    found = load_pairs(PairsData(source="reversal"))
    everything = [pair for part in found.parts.values() for pair in part]
    assert all(written == read[::-1] for read, written in everything)
    assert len({read for read, _ in everything}) == len(everything)
    assert split_names(found.names) == (tuple("abcdefghij"), (BEGIN, END, *"abcdefghij"))


def test_targets_end_with_the_end_and_what_is_given_is_a_step_late() -> None:
    made = recipe()
    batch = Translate(made, load_data(made)).batch(0)  # type: ignore[arg-type]
    source, lengths, given = batch.inputs
    for row, length in enumerate(lengths.tolist()):
        assert given[row, 0] == 0
        assert torch.equal(given[row, 1 : length + 1], batch.targets[row, :length])
        assert batch.targets[row, length] == 1
        assert (batch.targets[row, length + 1 :] == NOT_COUNTED).all()
        assert torch.equal(source[row, :length].flip(0) + 2, batch.targets[row, :length])


@pytest.mark.parametrize("attention", [False, True])
def test_writing_goes_on_from_what_was_written(attention: bool) -> None:
    """The symbols written are the likeliest ones where they themselves are given."""
    torch.manual_seed(0)
    made = recipe({"attention": attention, "both_ways": True})
    task = Translate(made, load_data(made))  # type: ignore[arg-type]
    model, (source, lengths, _) = task.new_model().eval(), task.batch(0).inputs
    written = model.write(source, lengths, 7)
    given = torch.cat([torch.zeros(len(written), 1, dtype=torch.int64), written[:, :-1]], dim=1)
    logits, _ = model(source, lengths, given, ())
    assert torch.equal(logits.argmax(dim=-1), written)


def test_padding_of_the_source_changes_nothing() -> None:
    torch.manual_seed(0)
    made = recipe({"attention": True})
    task = Translate(made, load_data(made))  # type: ignore[arg-type]
    model, (source, lengths, given) = task.new_model().eval(), task.batch(0).inputs
    together, _ = model(source, lengths, given, ())
    alone, _ = model(source[:1, : lengths[0]], lengths[:1], given[:1], ())
    torch.testing.assert_close(together[:1], alone)


@pytest.mark.parametrize("attention", [False, True])
def test_reversal_is_learnt_and_goes_through_the_same_door(attention: bool, tmp_path: Path) -> None:
    made = recipe({"attention": attention})
    training = Training(made, load_data(made), tmp_path / "run")
    before = training.task.evaluate(training.task.new_model())
    list(training.updates())
    checkpoint = load_checkpoint(tmp_path / "run")
    assert training.task.evaluate(checkpoint.model) < 0.8 * before
    found = export_checkpoint(checkpoint, tmp_path / "reversal", 1)
    assert (tmp_path / "reversal" / "1" / "priming.onnx").is_file()
    assert (found.contract.task, len(found.contract.planes)) == ("translate", 1 + attention)


def test_a_sequence_that_does_not_end_is_wrong() -> None:
    made = recipe()
    task = Translate(made, load_data(made))  # type: ignore[arg-type]
    model = task.new_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.network.head.bias[2] = 1  # "a" for ever
    assert task.test(model)["test_exact"] == 0


def commands(folder: Path, monkeypatch: pytest.MonkeyPatch, *, packed: bool) -> None:
    """Two small files in place of the real ones."""
    texts = {
        "training": "".join(f"IN: jump {'twice ' * k}now OUT: {'I_JUMP ' * (k + 1)}END\n" for k in range(40)),
        "test": "IN: jump OUT: I_JUMP\n",
    }
    files = []
    (folder / "scan").mkdir()
    for name, text in texts.items():
        content = text.encode()
        path = folder / "scan" / (f"{name}.txt.gz" if packed else f"{name}.txt")
        path.write_bytes(gzip.compress(content) if packed else content)
        files.append((f"{name}.txt", hashlib.sha256(content).hexdigest()))
    monkeypatch.setitem(pairs.SCAN, "scan-simple", tuple(files))
    monkeypatch.setenv("CAROUSEL_DATA", str(folder))


@pytest.mark.parametrize("packed", [False, True])
def test_commands_are_read_packed_or_not(
    packed: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands(tmp_path, monkeypatch, packed=packed)
    found = load_pairs(PairsData(source="scan-simple"))
    assert found.parts["test"] == [(("jump",), ("I_JUMP",))]
    assert (len(found.parts["training"]), len(found.parts["validation"])) == (38, 2)
    assert found.source == ("jump", "now", "twice")


def test_other_commands_under_the_same_name_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands(tmp_path, monkeypatch, packed=False)
    (tmp_path / "scan" / "test.txt").write_text("IN: run OUT: I_RUN\n")
    with pytest.raises(DataError, match=r"sha256 is .*, expected"):
        load_pairs(PairsData(source="scan-simple"))
    (tmp_path / "scan" / "test.txt").unlink()
    with pytest.raises(DataError, match=r"scan: no file .*test\.txt, and none with \.gz after it"):
        load_pairs(PairsData(source="scan-simple"))


def test_steps_have_to_be_enough_for_what_is_written() -> None:
    made = recipe(steps=10)
    with pytest.raises(DataError, match="expected steps of 11 or more, came 10"):
        Translate(made, load_data(made))  # type: ignore[arg-type]


def test_what_an_encoder_decoder_does_not_have_is_refused() -> None:
    made = recipe(model={"tie": True})
    with pytest.raises(CellError, match="translate: expected embedding, hidden, layers"):
        Translator(load_data(made).names, made)
