"""Truncated backpropagation with k1 < k2: what a gradient flows through, against a plain unrolled loop.

Axes: T time, B batch (streams), N characters of the text.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from model.data.corpus import Corpus
from model.data.vocabulary import Vocabulary
from model.learner import Learner
from model.recipe import Recipe, RecipeError
from model.tasks.characters import CharacterModel

TEXT = "the quick brown fox jumps over the lazy dog. " * 10
STREAMS, K1, K2 = 4, 3, 8


@pytest.fixture
def corpus() -> Corpus:
    vocabulary = Vocabulary.of_text(TEXT, 100)
    return Corpus(vocabulary, vocabulary.encode(TEXT), vocabulary.encode(TEXT[:90]), sha256="")


def recipe(**training: Any) -> Recipe:
    plan = {"updates": 100, "streams": STREAMS, "steps": K2, "learning_rate": 0.02, "evaluate_every": 50}
    return Recipe.from_document(
        {
            "task": "characters",
            "data": {"source": "none"},
            "model": {"embedding": 8, "hidden": 16, "layers": 1},
            "training": plan | training,
        }
    )


def gradient_by_hand(
    model: CharacterModel, tokens_N: Tensor, *, last: int, learnt: int, through: int
) -> dict[str, Tensor]:
    """Read every stream from its beginning, a step at a time, and cut the graph `through` steps before the end.

    Args:
        last: Steps made at the end.
        learnt: How many of the last of them have a loss.
        through: How many of the last of them the gradient sees.
    """
    starts = torch.arange(STREAMS) * len(tokens_N) // STREAMS
    (cell,), (state,) = model.stack.cells, model.stack.initial_state(STREAMS)
    losses = []
    for step in range(last):
        if step == last - through:
            state = type(state)(*(segment.detach() for segment in state))
        x_BE = model.embedding(tokens_N[(starts + step) % len(tokens_N)])
        output, state = cell.step(x_BE, state)
        if step >= last - learnt:
            targets = tokens_N[(starts + step + 1) % len(tokens_N)]
            losses.append(functional.cross_entropy(model.head(output), targets))
    model.zero_grad()
    torch.stack(losses).mean().backward()
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


def gradient(learner: Learner, number: int) -> dict[str, Tensor]:
    """Of an update, after all those before it."""
    for before in range(number + 1):
        learner.update(before)
    return {name: one.grad.clone() for name, one in learner.model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("number", [0, 1, 5])
def test_the_gradient_flows_through_the_last_k2_steps_and_no_others(number: int, corpus: Corpus) -> None:
    # a rate that changes no weight: the state comes from the same weights, whoever computes it
    learner = Learner(recipe(stride=K1, clip=1e9, learning_rate=1e-30), corpus)
    found, last = gradient(learner, number), number * K1 + K2
    text = corpus.training
    by_hand = gradient_by_hand(learner.model, text, last=last, learnt=K1, through=K2)
    assert_close(found, {name: one.clone() for name, one in by_hand.items()}, rtol=1e-4, atol=1e-7)
    for through in (K2 - 1, K2 + 1):
        if through <= last:
            other = gradient_by_hand(learner.model, text, last=last, learnt=K1, through=through)
            name = "stack.cells.0.weight_x"
            assert (other[name] - found[name]).abs().max() > 1e-5


def test_the_loss_is_that_of_the_last_k1_steps(corpus: Corpus) -> None:
    """Without a learning rate to speak of, updates that overlap lose what one pass over the text loses."""
    sliding = Learner(recipe(stride=K1, learning_rate=1e-30), corpus)
    losses = [sliding.update(number) for number in range(4)]
    model = Learner(recipe(), corpus).model
    starts = torch.arange(STREAMS) * len(corpus.training) // STREAMS
    window = torch.arange(4 * K1 + K2 + 1)
    tokens_BT = corpus.training[(starts[:, None] + window) % len(corpus.training)]
    logits_BTV, _ = model(tokens_BT[:, :-1], model.stack.initial_state(STREAMS))
    for number, loss in enumerate(losses):
        learnt = slice(number * K1 + K2 - K1, number * K1 + K2)
        expected = functional.cross_entropy(
            logits_BTV[:, learnt].flatten(0, 1), tokens_BT[:, 1:][:, learnt].flatten()
        )
        assert loss == pytest.approx(float(expected.detach()), rel=1e-6)


def test_a_stride_of_all_steps_is_bit_for_bit_the_chunked_form(corpus: Corpus) -> None:
    chunked, sliding = Learner(recipe(), corpus), Learner(recipe(stride=K2), corpus)
    assert [sliding.update(n) for n in range(5)] == [chunked.update(n) for n in range(5)]
    assert_close(sliding.pack(), chunked.pack(), rtol=0, atol=0)


def test_overlapping_updates_learn(corpus: Corpus) -> None:
    learner = Learner(recipe(stride=K1, updates=250), corpus)
    losses = [learner.update(number) for number in range(250)]
    assert losses[0] > 3
    assert sum(losses[-10:]) / 10 < 0.5


def test_a_stride_beyond_the_steps_is_refused() -> None:
    with pytest.raises(RecipeError, match="training: expected a stride of at most steps = 8, came 9"):
        recipe(stride=9)
