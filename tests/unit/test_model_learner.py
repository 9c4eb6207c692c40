"""Stateful truncated backpropagation: what an update changes, and what it refuses."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from model.checkpoint import part
from model.data.corpus import Corpus
from model.data.placed import DataError
from model.data.vocabulary import Vocabulary
from model.learner import DivergedError, Learner
from model.recipe import Recipe, RecipeError
from model.tasks.characters import evaluate

TEXT = "the quick brown fox jumps over the lazy dog. " * 10


@pytest.fixture
def corpus() -> Corpus:
    vocabulary = Vocabulary.of_text(TEXT, 100)
    return Corpus(vocabulary, vocabulary.encode(TEXT), vocabulary.encode(TEXT[:90]), sha256="")


def recipe(layers: int = 1, **training: Any) -> Recipe:
    plan = {"updates": 100, "streams": 4, "steps": 9, "learning_rate": 0.02, "evaluate_every": 50} | training
    return Recipe.from_document(
        {
            "task": "characters",
            "data": {"source": "none"},
            "model": {"embedding": 8, "hidden": 32, "layers": layers},
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


@pytest.mark.parametrize(("by", "limit"), [("value", 1e-4), ("tensor", 1e-3)])
def test_the_gradient_is_clipped_in_the_way_that_is_asked_for(by: str, limit: float, corpus: Corpus) -> None:
    learner = Learner(recipe(clip=limit, clip_by=by), corpus)
    learner.update(0)
    for parameter in learner.model.parameters():
        assert parameter.grad is not None
        size = parameter.grad.abs().max() if by == "value" else parameter.grad.norm()
        assert float(size) == pytest.approx(limit, rel=1e-2)


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_one_after_the_other_have_the_gradient_of_all_streams_at_once(
    parts: int, corpus: Corpus
) -> None:
    whole, divided = Learner(recipe(clip=1e9), corpus), Learner(recipe(clip=1e9, accumulate=parts), corpus)
    for number in range(3):
        assert divided.update(number) == pytest.approx(whole.update(number), rel=1e-6)
        for (name, one), other in zip(
            whole.model.named_parameters(), divided.model.parameters(), strict=True
        ):
            assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-7, msg=name)
    assert_close(divided.pack(), whole.pack(), rtol=1e-3, atol=1e-6)


def test_streams_that_cannot_be_divided_evenly_are_refused() -> None:
    with pytest.raises(RecipeError, match="4 streams cannot be split into accumulate = 3 parts"):
        recipe(accumulate=3)


def test_the_average_is_evaluated_and_the_weights_behind_it_are_trained(corpus: Corpus) -> None:
    averaging, plain = Learner(recipe(average="ema", average_decay=0.9), corpus), Learner(recipe(), corpus)
    for number in range(5):
        averaging.update(number)
        plain.update(number)
    packed = averaging.pack()
    assert_close(averaging.model.state_dict(), plain.model.state_dict(), rtol=0, atol=0)
    assert_close(part(packed, "trained."), dict(averaging.model.state_dict()), rtol=0, atol=0)
    assert_close(part(packed, "model."), dict(averaging.evaluated.state_dict()), rtol=0, atol=0)
    assert not torch.equal(averaging.evaluated.head.weight, averaging.model.head.weight)


def test_the_plain_average_is_the_mean_of_the_weights_since_progress_ended(corpus: Corpus) -> None:
    learner, seen = Learner(recipe(average="asgd", average_patience=1), corpus), []
    for number in range(6):
        learner.update(number, course=(1.0, 2.0, 3.0) if number >= 2 else (1.0,))
        assert (learner.evaluated is learner.model) == (number < 2)
        if number >= 2:
            seen.append(learner.model.head.weight.detach().clone())
    assert_close(learner.evaluated.head.weight.detach(), torch.stack(seen).mean(0))


def test_the_schedule_sets_the_rate_of_every_update(corpus: Corpus) -> None:
    learner = Learner(recipe(schedule="plateau", warm_up=0.0), corpus)
    learner.update(50, course=(2.0, 2.0))
    assert {group["lr"] for group in learner._optimizer.param_groups} == {0.02 / 4}


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


def poison(weight: Tensor) -> None:
    with torch.no_grad():
        weight.view(-1)[0] = torch.inf


def break_state(learner: Learner) -> None:
    tensors = learner.pack()
    poison(tensors["state.layer1.cell"])
    learner.unpack(tensors)


def hook(module: nn.Module) -> None:
    module.register_forward_hook(lambda _, __, output: output * torch.nan)


def hook_gradients(*weights: nn.Parameter) -> None:
    for weight in weights:
        weight.register_hook(lambda gradient: gradient * torch.inf)


@pytest.mark.parametrize(
    ("ruin", "place"),
    [
        (lambda learner: poison(learner.model.head.bias), r"the weight head\.bias"),
        (break_state, "the output of stack, layer 1"),
        (lambda learner: hook(learner.model.head), "the output of head"),
        (
            lambda learner: hook_gradients(learner.model.embedding.weight),
            r"the gradient of embedding\.weight",
        ),
        (  # the backward pass comes to the head first
            lambda learner: hook_gradients(learner.model.embedding.weight, learner.model.head.bias),
            r"the gradient of head\.bias",
        ),
    ],
)
def test_what_is_not_finite_stops_before_the_weights_are_touched_and_is_named(
    ruin: Callable[[Learner], None], place: str, corpus: Corpus
) -> None:
    learner = Learner(recipe(layers=2), corpus)
    ruin(learner)
    before = {name: weight.clone() for name, weight in learner.model.state_dict().items()}
    line = rf"^update 0: loss [\w.]+, gradient (nan|inf); first not finite: {place}; try a smaller learning_rate$"
    with pytest.raises(DivergedError, match=line):
        learner.update(0)
    assert_close(learner.model.state_dict(), before, rtol=0, atol=0, equal_nan=True)


def test_a_text_too_short_for_the_streams_is_refused(corpus: Corpus) -> None:
    with pytest.raises(DataError, match="4 streams of 9 steps need 36"):
        Learner(recipe(), replace(corpus, training=corpus.training[:35]))
