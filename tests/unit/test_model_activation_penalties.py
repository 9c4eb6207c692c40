"""What large and sudden activations add to the loss, and that the learner adds it."""

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from model.activation_penalties import ar, tar
from model.model_recipe import ModelRecipe
from model.tasks.characters import CharacterModel

SIZES = {"embedding": 6, "hidden": 5, "layers": 2}


def test_large_activations_cost_their_mean_square() -> None:
    y = torch.tensor([[[1.0, -2.0]], [[3.0, 0.0]]])
    assert ar(y, 2.0).item() == pytest.approx(2 * (1 + 4 + 9) / 4)


def test_sudden_activations_cost_the_mean_square_of_their_change() -> None:
    y = torch.tensor([[[1.0, -2.0]], [[3.0, 0.0]], [[3.0, 1.0]]])
    assert tar(y, 3.0).item() == pytest.approx(3 * (4 + 4 + 0 + 1) / 4)


def test_a_single_step_has_no_change() -> None:
    assert tar(torch.ones(1, 2, 3), 3.0).item() == 0


def test_penalties_are_float32_where_activations_are_bfloat16() -> None:
    y = torch.randn(4, 2, 3).bfloat16()
    assert {ar(y, 1.0).dtype, tar(y, 1.0).dtype} == {torch.float32}


def penalty(**settings: Any) -> torch.Tensor | float:
    torch.manual_seed(0)
    model = CharacterModel(7, ModelRecipe.model_validate(SIZES | settings))
    model(torch.zeros(2, 9, dtype=torch.int64), model.stack.initial_state(2))
    return model.penalty


def test_a_model_keeps_both_penalties_of_its_last_call() -> None:
    together = penalty(activation_penalty=2.0, temporal_penalty=1.0)
    apart = penalty(activation_penalty=2.0) + penalty(temporal_penalty=1.0)
    assert_close(together, apart)
    assert penalty() == 0


def test_the_first_penalty_is_on_what_is_left_after_dropout_and_the_second_on_the_whole() -> None:
    dropout = {"output": 0.5}
    assert penalty(activation_penalty=2.0, dropout=dropout) != penalty(activation_penalty=2.0)
    assert penalty(temporal_penalty=1.0, dropout=dropout) == penalty(temporal_penalty=1.0)


def test_there_is_no_penalty_in_evaluation() -> None:
    model = CharacterModel(7, ModelRecipe.model_validate(SIZES | {"activation_penalty": 2.0}))
    tokens, state = torch.zeros(2, 9, dtype=torch.int64), model.stack.initial_state(2)
    model(tokens, state)
    model.eval()
    model(tokens, state)
    assert model.penalty == 0
