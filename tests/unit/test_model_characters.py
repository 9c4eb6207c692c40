"""The character language task: the model, its loss and its exact evaluation."""

import math
from itertools import pairwise

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from model.recipe import ModelRecipe
from model.tasks.characters import CharacterModel, bits, cross_entropy, evaluate

SYMBOLS = 7


@pytest.fixture
def model() -> CharacterModel:
    torch.manual_seed(0)
    return CharacterModel(SYMBOLS, ModelRecipe(embedding=3, hidden=5, layers=2, dropout=0.5))


@pytest.fixture
def text() -> torch.Tensor:
    return torch.randint(0, SYMBOLS, (101,), generator=torch.Generator().manual_seed(1))


def one_by_one(model: CharacterModel, text: torch.Tensor) -> float:
    """Mean nats per character the slow way: one character at a time."""
    model.eval()
    state, nats = model.stack.initial_state(1), 0.0
    with torch.no_grad():
        for read, following in pairwise(text):
            logits, state = model(read.view(1, 1), state)
            nats -= float(functional.log_softmax(logits, dim=-1)[0, 0, following])
    return nats / (len(text) - 1)


def test_logits_belong_to_every_character_read(model: CharacterModel) -> None:
    logits, state = model(torch.zeros(2, 9, dtype=torch.int64), model.stack.initial_state(2))
    assert logits.shape == (2, 9, SYMBOLS)
    assert [tuple(layer.cell.shape) for layer in state] == [(2, 5), (2, 5)]


def test_evaluation_is_the_mean_over_every_character_of_one_stream(
    model: CharacterModel, text: torch.Tensor
) -> None:
    assert evaluate(model, text, steps=8) == pytest.approx(one_by_one(model, text), rel=1e-6)


def test_the_size_of_chunks_does_not_change_an_evaluation(model: CharacterModel, text: torch.Tensor) -> None:
    assert evaluate(model, text, steps=3) == pytest.approx(evaluate(model, text, steps=1000), rel=1e-6)


@pytest.mark.parametrize("streams", [3, 7, 200])
def test_streams_that_do_not_divide_the_text_count_each_character_once(
    streams: int, model: CharacterModel, text: torch.Tensor
) -> None:
    length = math.ceil(100 / streams)
    parts = [text[start : start + length + 1] for start in range(0, 100, length)]
    total = sum(one_by_one(model, part) * (len(part) - 1) for part in parts)
    assert evaluate(model, text, streams) == pytest.approx(total / 100, rel=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_the_mode_as_it_was(
    training: bool, model: CharacterModel, text: torch.Tensor
) -> None:
    model.train(training)
    evaluate(model, text)
    assert model.training is model.stack.training is training


def test_a_model_that_knows_nothing_needs_the_log_of_the_vocabulary(
    model: CharacterModel, text: torch.Tensor
) -> None:
    for parameter in model.head.parameters():
        torch.nn.init.zeros_(parameter)
    assert bits(evaluate(model, text)) == pytest.approx(math.log2(SYMBOLS))


def test_the_loss_is_float32_where_logits_are_bfloat16() -> None:
    logits, targets = torch.randn(2, 3, SYMBOLS).bfloat16(), torch.zeros(2, 3, dtype=torch.int64)
    loss = cross_entropy(logits, targets)
    assert loss.dtype == torch.float32
    assert_close(loss, cross_entropy(logits.float(), targets), rtol=0, atol=0)
