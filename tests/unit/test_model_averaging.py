"""Averages of the weights."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from model.averaging import averaged, begun, stalled
from model.training_recipe import TrainingRecipe

CPU = torch.device("cpu")


def plan(**changes: Any) -> TrainingRecipe:
    keys = {"updates": 100, "streams": 1, "steps": 1, "learning_rate": 0.5, "evaluate_every": 10}
    return TrainingRecipe.model_validate(keys | changes)


def after(of: TrainingRecipe, values: list[float]) -> float:
    """The average of a single weight that takes these values."""
    model = nn.Linear(1, 1, bias=False)
    average = averaged(model, of, CPU)
    assert average is not None
    for value in values:
        nn.init.constant_(model.weight, value)
        average.update_parameters(model)
    return float(average.module.weight.detach())


def test_the_exponential_average_begins_with_the_first_weights_and_forgets_them() -> None:
    of = plan(average="ema", average_decay=0.75)
    assert after(of, [8.0]) == 8
    assert after(of, [8.0, 0.0, 4.0]) == pytest.approx(0.75 * (0.75 * 8) + 0.25 * 4)


def test_the_plain_average_weighs_all_weights_alike() -> None:
    assert after(plan(average="asgd"), [8.0, 0.0, 4.0, 4.0]) == pytest.approx(4)


def test_the_average_is_a_model_of_its_own() -> None:
    model = nn.Linear(2, 2)
    before = model.weight.clone()
    average = averaged(model, plan(average="ema"), CPU)
    assert average is not None
    average.update_parameters(model)
    nn.init.zeros_(average.module.weight)
    assert_close(model.weight, before, rtol=0, atol=0)


def test_there_is_none_where_none_is_wanted() -> None:
    assert averaged(nn.Linear(1, 1), plan(), CPU) is None
    assert not begun(plan(), course=(1.0, 2.0, 3.0))


def test_the_exponential_average_begins_at_once() -> None:
    assert begun(plan(average="ema"), course=())


@pytest.mark.parametrize(
    ("course", "expected"),
    [
        ((), False),
        ((3.0, 2.0, 2.5), False),  # 2.5 is not worse than 3, and 2 is too recent
        ((3.0, 2.0, 2.5, 2.6), False),
        ((3.0, 2.0, 2.5, 2.6, 2.1), True),  # worse than 2, more than two evaluations ago
        ((3.0, 2.0, 2.5, 2.6, 2.1, 1.0, 0.5), True),  # once is enough
        ((3.0, 2.9, 2.8, 2.7, 2.6, 2.5), False),
        ((3.0, 1.0, 1.0, 1.0, 1.0), False),  # as good is not worse
    ],
)
def test_the_plain_average_begins_when_an_evaluation_is_worse_than_those_of_long_ago(
    course: tuple[float, ...], expected: bool
) -> None:
    assert stalled(course, patience=2) is expected
    assert begun(plan(average="asgd", average_patience=2), course) is expected


def test_the_trigger_is_that_of_its_authors() -> None:
    """Their loop: `len(logs) > n and v > min(logs[:-n])`, before v is appended, and never again once it was true."""
    torch.manual_seed(0)
    for n in (1, 2, 5):
        course, triggered = torch.randn(30).cumsum(0).neg().tolist(), False
        logs: list[float] = []
        for v in course:
            triggered |= len(logs) > n and v > min(logs[:-n])
            logs.append(v)
            assert stalled(tuple(logs), patience=n) is triggered
