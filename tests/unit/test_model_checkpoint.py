"""Checkpoints: what comes back, and the one line that says why a file is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from model.checkpoint import (
    METADATA_KEY,
    CheckpointError,
    Document,
    load_checkpoint,
    read_checkpoint,
    weights,
    write_checkpoint,
)
from model.recipe import Recipe
from model.tasks.characters import CharacterModel

RECIPE: dict[str, Any] = {
    "task": "characters",
    "data": {"source": "stdlib"},
    "model": {"embedding": 3, "hidden": 4, "layers": 2, "dropout": 0.5},
    "training": {"updates": 1, "streams": 1, "steps": 1, "learning_rate": 1.0, "evaluate_every": 1},
}
DOCUMENT = Document(
    recipe=RECIPE,
    vocabulary=("\N{REPLACEMENT CHARACTER}", "\n", "a", "é"),
    lineage="0123456789abcdef" * 2,
    data_sha256="f" * 64,
    metrics={"validation_nats": 1.5, "updates": 7.0},
    revision="abc",
    created="2025-01-01T00:00:00+00:00",
)


@pytest.fixture
def model() -> CharacterModel:
    torch.manual_seed(0)
    return CharacterModel(4, Recipe.from_document(RECIPE).model)


@pytest.fixture
def file(model: CharacterModel, tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "best.safetensors", DOCUMENT, weights(model))
    return tmp_path / "best.safetensors"


def refused(file: Path, line: str) -> None:
    with pytest.raises(CheckpointError, match=line) as raised:
        load_checkpoint(file)
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


def rewrite(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the document and leave everything else, as a hand with an editor would."""
    with safe_open(file, framework="pt") as opened:
        header = opened.metadata()
    document = json.loads(header[METADATA_KEY])
    change(document)
    save_file(load_file(file), file, header | {METADATA_KEY: json.dumps(document)})


def test_what_was_written_comes_back(file: Path, model: CharacterModel) -> None:
    found = load_checkpoint(file)
    assert_close(found.model.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert (found.vocabulary, found.unknown) == (DOCUMENT.vocabulary, 0)
    assert (found.recipe, found.metrics, found.lineage) == (RECIPE, DOCUMENT.metrics, DOCUMENT.lineage)
    assert (found.task, found.revision, found.created) == ("characters", "abc", DOCUMENT.created)
    assert found.data_sha256 == DOCUMENT.data_sha256


def test_the_model_is_ready_to_run_without_dropout(file: Path) -> None:
    model = load_checkpoint(file).model
    assert not model.training
    assert not model.stack.training
    tokens = torch.zeros(1, 3, dtype=torch.int64)
    once, again = (model(tokens, model.stack.initial_state(1))[0] for _ in range(2))
    assert_close(once, again, rtol=0, atol=0)


def test_a_folder_stands_for_its_best_checkpoint(file: Path) -> None:
    assert load_checkpoint(file.parent).lineage == DOCUMENT.lineage


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "gone.safetensors", "no such checkpoint")


@pytest.mark.parametrize("kept", [0, 5, 100, 2000, -1])
def test_a_file_cut_short_is_refused(kept: int, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:kept])
    refused(file, "not a safetensors file, or cut short")


def test_a_flipped_bit_in_a_weight_is_noticed(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-10] ^= 1
    file.write_bytes(content)
    refused(file, "damaged, it is not what was written")


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.zeros(1000))
    refused(tmp_path / "array.npy", "not a safetensors file")


def test_a_safetensors_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    refused(
        tmp_path / "foreign.safetensors",
        "not a checkpoint of Carousel, its header has no carousel.checkpoint",
    )


@pytest.mark.parametrize("text", ["[1]", "{", '"text"'])
def test_a_document_that_is_no_object_is_refused(text: str, tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "odd.safetensors", {METADATA_KEY: text})
    refused(tmp_path / "odd.safetensors", "its document is not a JSON object")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda document: document.update(format=2), "has format 2, this release reads format 1"),
        (lambda document: document.pop("vocabulary"), "damaged, vocabulary: expected a value, came none"),
        (lambda document: document.update(extra=1), "damaged, extra: unknown key"),
        (lambda document: document["metrics"].update(updates=8.0), "damaged, it is not what was written"),
    ],
)
def test_a_document_that_was_changed_is_refused(
    change: Callable[[dict[str, Any]], object], line: str, file: Path
) -> None:
    rewrite(file, change)
    refused(file, line)


@pytest.mark.parametrize(
    ("sizes", "line"),
    [
        ({"hidden": 8}, r"head\.weight is \[4, 4\] torch.float32, its recipe says \[4, 8\]"),
        ({"hidden": 16_384}, "its recipe says"),
        ({"layers": 3}, "weights missing or foreign: stack.cells.2"),
        ({"layers": 1}, "weights missing or foreign: stack.cells.1"),
        ({"hidden": -1}, "model.hidden: Input should be greater"),
    ],
)
def test_a_recipe_that_does_not_fit_its_weights_is_refused(
    sizes: dict[str, int], line: str, file: Path, model: CharacterModel
) -> None:
    recipe = RECIPE | {"model": RECIPE["model"] | sizes}
    write_checkpoint(file, DOCUMENT.model_copy(update={"recipe": recipe}), weights(model))
    refused(file, line)


def test_a_vocabulary_that_does_not_fit_its_weights_is_refused(file: Path, model: CharacterModel) -> None:
    document = DOCUMENT.model_copy(update={"vocabulary": (*DOCUMENT.vocabulary, "z")})
    write_checkpoint(file, document, weights(model))
    refused(file, r"embedding\.weight is \[4, 3\] .*, its recipe says \[5, 3\]")


def test_weights_that_are_not_finite_are_refused(file: Path, model: CharacterModel) -> None:
    with torch.no_grad():
        model.head.bias[2] = torch.nan
    write_checkpoint(file, DOCUMENT, weights(model))
    refused(file, "head.bias holds numbers that are not finite")


def test_weights_of_another_type_are_refused(file: Path, model: CharacterModel) -> None:
    write_checkpoint(file, DOCUMENT, weights(model.to(torch.bfloat16)))
    refused(file, "torch.bfloat16, its recipe says")


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(file: Path) -> None:
    shared = torch.zeros(3)
    with pytest.raises(RuntimeError, match="share memory"):
        write_checkpoint(file, DOCUMENT, {"model.one": shared, "model.two": shared})
    assert load_checkpoint(file).lineage == DOCUMENT.lineage


def test_tensors_of_every_kind_survive(tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = {
        "optimizer.step": torch.tensor(3.0),
        "rng.cpu": torch.get_rng_state(),
        "state.empty": torch.zeros(0, 4),
    }
    write_checkpoint(tmp_path / "last.safetensors", DOCUMENT, tensors)
    _, found = read_checkpoint(tmp_path / "last.safetensors")
    assert_close(found, tensors, rtol=0, atol=0)
