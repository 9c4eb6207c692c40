"""Stateful truncated backpropagation: what an update changes, and what it refuses."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from model.data.corpus import Corpus
from model.data.sources import DataError
from model.data.vocabulary import Vocabulary
from model.learner import DivergedError, Learner
from model.recipe import Recipe
from model.tasks.characters import evaluate

TEXT = "the quick brown fox jumps over the lazy dog. " * 10


@pytest.fixture
def corpus() -> Corpus:
    vocabulary = Vocabulary.of_text(TEXT, 100)
    return Corpus(vocabulary, vocabulary.encode(TEXT), vocabulary.encode(TEXT[:90]), sha256="")


def recipe(**training: Any) -> Recipe:
    plan = {"updates": 100, "streams": 4, "steps": 9, "learning_rate": 0.02, "evaluate_every": 50} | training
    return Recipe.from_document(
        {
            "task": "characters",
            "data": {"source": "none"},
            "model": {"embedding": 8, "hidden": 32, "layers": 1},
            "training": plan,
        }
    )


def test_a_pattern_is_learnt(corpus: Corpus) -> None:
    learner = Learner(recipe(), corpus)
    assert evaluate(learner.model, corpus.validation) > 3
    for number in range(100):
        learner.update(number)
    assert evaluate(learner.model, corpus.validation) < 0.3


def test_the_same_seed_gives_the_same_training(corpus: Corpus) -> None:
    losses = [
        [learner.update(n) for n in range(3)]
        for learner in (Learner(recipe(), corpus), Learner(recipe(), corpus))
    ]
    assert losses[0] == losses[1]
    assert Learner(recipe(seed=1), corpus).update(0) != losses[0][0]


def test_the_state_is_carried_from_chunk_to_chunk(corpus: Corpus) -> None:
    """Without a learning rate to speak of, the losses of two chunks are those of one chunk twice as long."""
    short, long = recipe(learning_rate=1e-30), recipe(learning_rate=1e-30, steps=18)
    learner = Learner(short, corpus)
    halves = [learner.update(0), learner.update(1)]
    assert sum(halves) / 2 == pytest.approx(Learner(long, corpus).update(0), rel=1e-6)


def test_gradients_end_at_the_border_of_a_chunk(corpus: Corpus) -> None:
    learner = Learner(recipe(), corpus)
    learner.update(0)
    carried = {name: tensor for name, tensor in learner.pack().items() if name.startswith("state.")}
    assert carried.keys() == {"state.layer0.hidden", "state.layer0.cell"}
    assert not any(tensor.requires_grad for tensor in carried.values())


def test_the_global_norm_of_the_gradient_is_clipped(corpus: Corpus) -> None:
    learner = Learner(recipe(clip=1e-3), corpus)
    learner.update(0)
    gradients = [
        parameter.grad.flatten() for parameter in learner.model.parameters() if parameter.grad is not None
    ]
    assert float(torch.cat(gradients).norm()) == pytest.approx(1e-3, rel=1e-2)


def test_weight_decay_leaves_biases_alone(corpus: Corpus) -> None:
    with_decay, without = (Learner(recipe(weight_decay=decay), corpus) for decay in (5.0, 0.0))
    for learner in (with_decay, without):
        learner.update(0)
    decayed, plain = with_decay.model.state_dict(), without.model.state_dict()
    changed = {name for name in plain if not torch.equal(decayed[name], plain[name])}
    assert changed == {"embedding.weight", "stack.cells.0.weight_x", "stack.cells.0.weight_h", "head.weight"}


def test_bf16_keeps_weights_state_and_moments_in_float32(corpus: Corpus) -> None:
    learner = Learner(recipe(precision="bf16"), corpus)
    assert learner.update(0) != Learner(recipe(), corpus).update(0)
    assert {tensor.dtype for name, tensor in learner.pack().items() if name != "rng.cpu"} == {torch.float32}


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(corpus: Corpus) -> None:
    learner = Learner(recipe(), corpus)
    with torch.no_grad():
        learner.model.head.bias[0] = torch.inf
    before = {name: weight.clone() for name, weight in learner.model.state_dict().items()}
    with pytest.raises(
        DivergedError, match=r"update 0: loss (inf|nan), gradient .*; try a smaller learning_rate"
    ):
        learner.update(0)
    assert_close(learner.model.state_dict(), before, rtol=0, atol=0)


def test_a_text_too_short_for_the_streams_is_refused(corpus: Corpus) -> None:
    with pytest.raises(DataError, match="4 streams of 9 steps need 36"):
        Learner(recipe(), replace(corpus, training=corpus.training[:35]))
