"""A training in its folder: evaluations, checkpoints, early stopping, and going on after a stop."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from model.checkpoint import CheckpointError, load_checkpoint
from model.data.corpus import Corpus
from model.data.vocabulary import Vocabulary
from model.recipe import Recipe
from model.tasks.characters import evaluate
from model.training import Training, TrainingError

TEXT = "a rose is a rose is a rose. " * 10


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


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_a_resumed_training_keeps_its_lineage_and_a_fresh_one_has_its_own(
    corpus: Corpus, tmp_path: Path
) -> None:
    for folder in ("one", "other"):
        finish(Training(recipe(), corpus, tmp_path / folder))
    one, other = (load_checkpoint(tmp_path / folder).lineage for folder in ("one", "other"))
    assert one != other
    list(islice(Training(recipe(), corpus, tmp_path / "third").updates(), 4))
    before = load_checkpoint(tmp_path / "third").lineage
    finish(Training(recipe(), corpus, tmp_path / "third", resume=True))
    assert load_checkpoint(tmp_path / "third" / "last.safetensors").lineage == before


def test_every_evaluation_is_a_line_of_history(corpus: Corpus, tmp_path: Path) -> None:
    finish(Training(recipe(updates=10), corpus, tmp_path))
    assert [line["updates"] for line in lines(tmp_path)] == [4, 8, 10]
    assert {key for key in lines(tmp_path)[0] if not key.startswith("gates.")} == {
        "training_nats",
        "validation_nats",
        "bits_per_character",
        "updates",
        "seconds",
    }
    assert {key for key in lines(tmp_path)[0] if key.startswith("gates.layer0.")} == {
        f"gates.layer0.{name}" for name in ("input", "forget", "output")
    }


def test_an_update_says_its_loss_and_after_an_evaluation_its_figure(corpus: Corpus, tmp_path: Path) -> None:
    updates = list(Training(recipe(), corpus, tmp_path).updates())
    assert [update.number for update in updates if update.figures is not None] == [4, 8, 12]
    losses = [update.loss for update in updates]
    assert lines(tmp_path)[1]["training_nats"] == pytest.approx(sum(losses[4:8]) / 4)


def test_the_best_checkpoint_is_that_of_the_best_evaluation(corpus: Corpus, tmp_path: Path) -> None:
    # a rate that learns, then destroys
    finish(Training(recipe(updates=40, learning_rate=1.0, warm_up=0.9), corpus, tmp_path))
    course = lines(tmp_path)
    best = min(course, key=lambda line: line["validation_nats"])
    assert best != course[-1]
    assert load_checkpoint(tmp_path).metrics["updates"] == best["updates"]
    assert load_checkpoint(tmp_path / "last.safetensors").metrics["updates"] == 40


def test_training_stops_when_patience_ends(corpus: Corpus, tmp_path: Path) -> None:
    training = finish(
        Training(recipe(updates=200, learning_rate=1.0, warm_up=0.9, patience=2), corpus, tmp_path)
    )
    course = [line["validation_nats"] for line in lines(tmp_path)]
    assert training.finished
    assert training.progress.updates < 200
    assert course.index(min(course)) == len(course) - 3
    assert list(Training(training.recipe, corpus, tmp_path, resume=True).updates()) == []


def test_the_figure_that_is_kept_is_that_of_one_unbroken_stream(corpus: Corpus, tmp_path: Path) -> None:
    figures = finish(Training(recipe(), corpus, tmp_path)).measure()
    found = load_checkpoint(tmp_path)
    assert found.metrics == figures
    assert figures["validation_nats"] == evaluate(found.model, corpus.validation)
    assert figures["updates"] in {4, 8, 12}


def test_a_folder_with_a_checkpoint_is_not_overwritten(corpus: Corpus, tmp_path: Path) -> None:
    finish(Training(recipe(), corpus, tmp_path))
    before = (tmp_path / "best.safetensors").read_bytes()
    with pytest.raises(
        TrainingError, match=r"holds best\.safetensors: go on with --resume, or give another --out"
    ):
        Training(recipe(), corpus, tmp_path)
    assert (tmp_path / "best.safetensors").read_bytes() == before


def test_there_is_nothing_to_go_on_from_in_an_empty_folder(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"last\.safetensors: no such checkpoint"):
        Training(recipe(), corpus, tmp_path, resume=True)


def test_a_checkpoint_of_weights_alone_cannot_be_gone_on_from(corpus: Corpus, tmp_path: Path) -> None:
    finish(Training(recipe(), corpus, tmp_path))
    (tmp_path / "best.safetensors").replace(tmp_path / "last.safetensors")
    with pytest.raises(TrainingError, match="holds weights only"):
        Training(recipe(), corpus, tmp_path, resume=True)


def test_another_recipe_cannot_go_on_and_the_difference_is_named(corpus: Corpus, tmp_path: Path) -> None:
    finish(Training(recipe(), corpus, tmp_path))
    with pytest.raises(
        TrainingError, match=r"was made with training\.updates = 12, not 24: give another --out"
    ):
        Training(recipe(updates=24), corpus, tmp_path, resume=True)


def test_another_text_cannot_be_gone_on_with(corpus: Corpus, tmp_path: Path) -> None:
    finish(Training(recipe(), corpus, tmp_path))
    other = Corpus(corpus.vocabulary, corpus.training, corpus.validation, sha256="of another")
    with pytest.raises(TrainingError, match="was trained on other data"):
        Training(recipe(), other, tmp_path, resume=True)
