"""Going on after a stop: with every technique, bit for bit where an unbroken training ends."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from model import history
from model.checkpoint import read_checkpoint, write_checkpoint
from model.data.corpus import Corpus
from model.data.vocabulary import Vocabulary
from model.recipe import Recipe
from model.schedule import setbacks
from model.training import Training

TEXT = "a rose is a rose is a rose. " * 10

# A rate so high that evaluations also get worse.
WILD = {"updates": 24, "evaluate_every": 2, "learning_rate": 0.5, "warm_up": 0.0}

TECHNIQUES: dict[str, dict[str, Any]] = {
    "nothing else": {},
    "an overlap": {"stride": 2},
    "parts": {"accumulate": 3},
    "clipping by value": {"clip_by": "value", "clip": 1e-3},
    "clipping by tensor": {"clip_by": "tensor", "clip": 1e-2},
    "a cosine": {"schedule": "cosine"},
    "a constant rate": {"schedule": "constant"},
    "a plateau": WILD | {"schedule": "plateau"},
    "an exponential average": {"average": "ema", "average_decay": 0.8},
    "a plain average": WILD
    | {"learning_rate": 2.0, "schedule": "constant", "average": "asgd", "average_patience": 1},
    "bfloat16": {"precision": "bf16"},
    "all of them": WILD
    | {
        "stride": 2,
        "accumulate": 3,
        "clip_by": "tensor",
        "schedule": "plateau",
        "average": "ema",
        "precision": "bf16",
    },
}


@pytest.fixture
def corpus() -> Corpus:
    vocabulary = Vocabulary.of_text(TEXT, 100)
    return Corpus(vocabulary, vocabulary.encode(TEXT), vocabulary.encode(TEXT[:60]), sha256="of the text")


def recipe(**training: Any) -> Recipe:
    plan = {"updates": 12, "streams": 3, "steps": 5, "learning_rate": 0.01, "evaluate_every": 4} | training
    return Recipe.from_document(
        {
            "task": "characters",
            "data": {"source": "none"},
            "model": {"embedding": 4, "hidden": 8, "layers": 2, "dropout": 0.4},
            "training": plan,
        }
    )


def finish(training: Training) -> Training:
    for _ in training.updates():
        pass
    return training


def course(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if key != "seconds"} for line in lines]


def assert_same(folder: Path, expected: Path) -> None:
    for name in ("best.safetensors", "last.safetensors"):
        (found, tensors), (wanted, others) = (read_checkpoint(run / name) for run in (folder, expected))
        assert_close(tensors, others, rtol=0, atol=0)
        assert found.metrics == wanted.metrics
    assert found.progress is not None
    assert wanted.progress is not None
    assert found.progress.model_copy(update={"seconds": wanted.progress.seconds}) == wanted.progress
    assert course(folder) == course(expected)


def stopped_at(made: int, training: Training, *, saved: bool) -> None:
    assert len(list(islice(training.updates(), made))) == made
    if saved:
        training.save()
    torch.manual_seed(99)  # whatever happens in between


@pytest.mark.parametrize("made", [4, 7, 11])
def test_a_training_goes_on_from_its_last_evaluation(made: int, corpus: Corpus, tmp_path: Path) -> None:
    finish(Training(recipe(), corpus, tmp_path / "unbroken"))
    stopped_at(made, Training(recipe(), corpus, tmp_path / "stopped"), saved=False)
    history.append(tmp_path / "stopped", {"updates": 12.0})  # as if killed before the checkpoint that follows
    resumed = Training(recipe(), corpus, tmp_path / "stopped", resume=True)
    assert resumed.progress.updates == made // 4 * 4
    finish(resumed)
    assert_same(tmp_path / "stopped", tmp_path / "unbroken")


@pytest.mark.parametrize("made", [1, 4, 7, 11])
def test_a_training_that_was_saved_goes_on_from_that_very_update(
    made: int, corpus: Corpus, tmp_path: Path
) -> None:
    finish(Training(recipe(), corpus, tmp_path / "unbroken"))
    stopped_at(made, Training(recipe(), corpus, tmp_path / "stopped"), saved=True)
    resumed = Training(recipe(), corpus, tmp_path / "stopped", resume=True)
    assert resumed.progress.updates == made
    finish(resumed)
    assert_same(tmp_path / "stopped", tmp_path / "unbroken")


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_no_technique_is_forgotten(technique: str, corpus: Corpus, tmp_path: Path) -> None:
    used = recipe(**TECHNIQUES[technique])
    finish(Training(used, corpus, tmp_path / "unbroken"))
    made = used.training.updates - 5
    stopped_at(made, Training(used, corpus, tmp_path / "stopped"), saved=True)
    finish(Training(used, corpus, tmp_path / "stopped", resume=True))
    assert_same(tmp_path / "stopped", tmp_path / "unbroken")


@pytest.mark.parametrize("technique", ["a plateau", "a plain average"])
def test_what_waits_for_setbacks_has_had_some_before_the_stop(
    technique: str, corpus: Corpus, tmp_path: Path
) -> None:
    """Else the test above would hold whatever was forgotten."""
    used = recipe(**TECHNIQUES[technique])
    stopped_at(19, Training(used, corpus, tmp_path), saved=True)
    document, tensors = read_checkpoint(tmp_path / "last.safetensors")
    assert document.progress is not None
    assert setbacks(document.progress.course) > 0
    assert technique == "a plateau" or tensors["average.updates"] > 0


def test_what_was_saved_claims_no_figure_that_was_not_measured(corpus: Corpus, tmp_path: Path) -> None:
    training = Training(recipe(), corpus, tmp_path)
    stopped_at(7, training, saved=True)
    assert read_checkpoint(tmp_path / "last.safetensors")[0].metrics == {"updates": 7}
    assert read_checkpoint(tmp_path / "best.safetensors")[0].metrics["updates"] == 4


def test_saving_after_an_evaluation_leaves_its_figure(corpus: Corpus, tmp_path: Path) -> None:
    stopped_at(4, Training(recipe(), corpus, tmp_path), saved=True)
    assert "bits_per_character" in read_checkpoint(tmp_path / "last.safetensors")[0].metrics


def test_a_checkpoint_from_before_these_techniques_is_gone_on_from(corpus: Corpus, tmp_path: Path) -> None:
    finish(Training(recipe(), corpus, tmp_path / "unbroken"))
    stopped_at(4, Training(recipe(), corpus, tmp_path / "old"), saved=False)
    file = tmp_path / "old" / "last.safetensors"
    document, tensors = read_checkpoint(file)
    new = ("stride", "accumulate", "schedule", "clip_by", "average", "average_decay", "average_patience")
    for key in new:
        del document.recipe["training"][key]
    tensors["rng.cpu"] = tensors["rng.cpu"].flatten()
    write_checkpoint(file, document, tensors)
    finish(Training(recipe(), corpus, tmp_path / "old", resume=True))
    (_, found), (_, expected) = (
        read_checkpoint(tmp_path / run / "best.safetensors") for run in ("old", "unbroken")
    )
    assert_close(found, expected, rtol=0, atol=0)
