"""The character language task: the model, its loss and its exact evaluation."""

import copy
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from model.model_recipe import ModelRecipe
from model.tasks.characters import CharacterModel, bits, cross_entropy, evaluate
from model.tied_head import TiedHead, TieError

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


def made(**settings: Any) -> CharacterModel:
    torch.manual_seed(0)
    sizes = {"embedding": 5, "hidden": 5, "layers": 2, "tie": True} | settings
    return CharacterModel(SYMBOLS, ModelRecipe.model_validate(sizes))


def logits(model: CharacterModel) -> torch.Tensor:
    tokens = torch.arange(SYMBOLS).repeat(2, 1)
    return model(tokens, model.stack.initial_state(2))[0]


def test_a_tied_head_is_the_embedding_under_one_name() -> None:
    model = made()
    assert "head.weight" not in model.state_dict()
    assert model.head.weight is model.embedding.weight
    assert (
        sum(parameter.numel() for parameter in model.parameters())
        == sum(parameter.numel() for parameter in made(tie=False).parameters()) - 5 * SYMBOLS
    )


def test_a_tied_matrix_learns_from_both_its_places() -> None:
    model = made()
    table = model.embedding.weight
    logits(model).square().sum().backward()
    both = table.grad.clone()
    table.grad = None
    y, _ = model.stack(model.embedding(torch.arange(SYMBOLS).repeat(2, 1).T), model.stack.initial_state(2))
    functional.linear(y, table.detach(), model.head.bias).square().sum().backward()
    as_embedding = table.grad.clone()
    table.grad = None
    functional.linear(y.detach(), table, model.head.bias).square().sum().backward()
    assert_close(both, as_embedding + table.grad)


def test_a_tied_model_follows_its_embedding_into_a_copy() -> None:
    model = made()
    copied = copy.deepcopy(model)
    assert isinstance(copied.head, TiedHead)
    assert copied.head.weight is copied.embedding.weight
    assert copied.embedding.weight is not model.embedding.weight
    loaded = made()
    loaded.load_state_dict({name: weight + 1 for name, weight in model.state_dict().items()}, assign=True)
    assert loaded.head.weight is loaded.embedding.weight


def test_a_tied_matrix_starts_as_a_head_s_does() -> None:
    table = made(embedding=400, hidden=400).embedding.weight
    assert 0.98 / 20 < table.abs().max() <= 1 / 20


@pytest.mark.parametrize(
    "sizes", [{"embedding": 3}, {"cell": {"kind": "projected", "projection": 4}}], ids=["plain", "projected"]
)
def test_a_head_of_another_size_cannot_be_tied(sizes: dict[str, Any]) -> None:
    with pytest.raises(TieError, match=r"the head reads \d numbers, expected as many as an embedding has"):
        made(**sizes)


def test_a_projection_makes_a_head_fit_its_embedding() -> None:
    model = made(hidden=12, cell={"kind": "projected", "projection": 5})
    assert logits(model).shape == (2, SYMBOLS, SYMBOLS)


@pytest.mark.parametrize("dropout", [{"embedding": 0.5}, {"output": 0.5}, {"output": 0.5, "locked": True}])
@pytest.mark.parametrize("tie", [True, False])
def test_embedding_and_output_are_dropped_while_training_alone(dropout: dict[str, Any], tie: bool) -> None:
    model = made(dropout=dropout, tie=tie)
    assert not torch.equal(logits(model), logits(model))
    model.eval()
    assert_close(logits(model), logits(made(tie=tie).eval()))


def test_a_dropped_symbol_is_dropped_wherever_it_occurs() -> None:
    """Without a recurrence, equal characters give equal logits, unless one of them alone were dropped."""
    model = made(dropout={"embedding": 0.5}, layers=1, cell="rnn")
    torch.nn.init.zeros_(model.stack.cells[0].weight_h)
    tokens = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]])
    found, _ = model(tokens, model.stack.initial_state(1))
    assert_close(found[:, :4], found[:, 4:])


def test_weights_start_as_the_recipe_says_in_every_layer() -> None:
    model = made(initialise={"forget_bias": 3.0, "scale": 2.0}, layers=3, share=True, embedding=4, tie=False)
    for cell in model.stack.cells:
        assert_close(cell.bias.chunk(4)[1], torch.full((5,), 3.0))
        block = cell.weight_h.chunk(4)[0]
        assert_close(block @ block.T, 4 * torch.eye(5), rtol=0, atol=1e-5)
