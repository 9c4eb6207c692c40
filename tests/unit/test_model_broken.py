"""What breaks a training, and what it leaves behind."""

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.checkpoint import load_checkpoint, read_checkpoint
from model.data.corpus import Corpus
from model.data.vocabulary import Vocabulary
from model.learner import DivergedError
from model.recipe import Recipe
from model.training import Training

TEXT = "a rose is a rose is a rose. " * 10
FILES = ("best.safetensors", "last.safetensors", "history.jsonl")


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
            "model": {"embedding": 4, "hidden": 8, "layers": 2},
            "training": plan,
        }
    )


def begun(corpus: Corpus, folder: Path, updates: int) -> Training:
    training = Training(recipe(), corpus, folder)
    assert len(list(islice(training.updates(), updates))) == updates
    return training


def finish(training: Training) -> None:
    for _ in training.updates():
        pass


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A limit of the system; what it says to a write is not what a full disk says, and comes at the same place."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_loss_that_is_not_finite_keeps_the_checkpoints_before_it(corpus: Corpus, tmp_path: Path) -> None:
    training = begun(corpus, tmp_path, updates=6)
    before = contents(tmp_path)
    with torch.no_grad():
        training._learner.model.head.weight.fill_(torch.nan)
    with pytest.raises(
        DivergedError, match=r"update 6: loss nan, .*; first not finite: the weight head\.weight"
    ):
        finish(training)
    assert contents(tmp_path) == before
    assert load_checkpoint(tmp_path / "last.safetensors").metrics["updates"] == 4


def test_an_evaluation_that_is_not_finite_is_not_kept_either(corpus: Corpus, tmp_path: Path) -> None:
    training = begun(corpus, tmp_path, updates=7)
    before = contents(tmp_path)

    def only_in_evaluation(_: object, __: object, output: tuple[Tensor, Any]) -> tuple[Tensor, Any] | None:
        return None if training._learner.model.training else (output[0] * torch.nan, output[1])

    training._learner.model.register_forward_hook(only_in_evaluation)
    with pytest.raises(DivergedError, match="after 8 updates the held-out loss is nan; try a smaller"):
        finish(training)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("call", ["updates", "save"])
def test_a_full_disk_loses_nothing(call: str, corpus: Corpus, tmp_path: Path) -> None:
    finish(Training(recipe(), corpus, tmp_path / "unbroken"))
    folder = tmp_path / "full"
    training = begun(corpus, folder, updates=6)
    before = contents(folder)
    with files_of_at_most(2000), pytest.raises(OSError, match=r"File too large: .*\.safetensors'") as raised:
        finish(training) if call == "updates" else training.save()
    assert raised.value.errno == errno.EFBIG
    after = contents(folder)
    assert after.keys() == set(FILES)
    assert {name: after[name] for name in FILES[:2]} == {name: before[name] for name in FILES[:2]}
    finish(Training(recipe(), corpus, folder, resume=True))
    for name in FILES[:2]:
        (_, found), (_, expected) = (read_checkpoint(run / name) for run in (folder, tmp_path / "unbroken"))
        assert all(torch.equal(tensor, expected[key]) for key, tensor in found.items())


def test_a_history_that_cannot_be_written_is_named_before_any_checkpoint(
    corpus: Corpus, tmp_path: Path
) -> None:
    training = begun(corpus, tmp_path, updates=4)
    before = contents(tmp_path)
    with files_of_at_most(len(before["history.jsonl"]) + 10), pytest.raises(OSError, match=r"history\.jsonl"):
        finish(training)
    after = contents(tmp_path)
    assert {name: after[name] for name in FILES[:2]} == {name: before[name] for name in FILES[:2]}
    resumed = Training(recipe(), corpus, tmp_path, resume=True)
    assert contents(tmp_path) == before
    assert resumed.progress.updates == 4
