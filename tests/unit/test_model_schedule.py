"""The learning rate over a training."""

import warnings
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from model.schedule import cosine, learning_rate, one_cycle, rise, setbacks
from model.training_recipe import TrainingRecipe


def plan(**changes: Any) -> TrainingRecipe:
    keys = {"updates": 100, "streams": 1, "steps": 1, "learning_rate": 0.5, "evaluate_every": 10}
    return TrainingRecipe.model_validate(keys | changes)


def rates(of: TrainingRecipe) -> list[float]:
    return [learning_rate(of, made, ()) for made in range(of.updates)]


def sgd() -> torch.optim.SGD:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)


def torch_s(scheduler: LRScheduler, updates: int) -> list[float]:
    found = []
    with warnings.catch_warnings():
        # SequentialLR warns of what it does itself
        warnings.filterwarnings("ignore", message="The epoch parameter in `scheduler.step")
        for _ in range(updates):
            found.append(scheduler.get_last_lr()[0])
            scheduler.optimizer.step()
            scheduler.step()
    return found


def test_the_peak_lies_where_the_warm_up_ends() -> None:
    rates = [one_cycle(k / 1000, 0.3) for k in range(1001)]
    assert max(rates) == rates[300] == 1
    assert rates[:301] == sorted(rates[:301])
    assert rates[300:] == sorted(rates[300:], reverse=True)


def test_the_rate_starts_low_and_ends_lower() -> None:
    assert one_cycle(0, 0.3) == pytest.approx(1 / 25)
    assert one_cycle(1, 0.3) == pytest.approx(1e-4)


def test_it_is_torch_s_one_cycle() -> None:
    # theirs ends its slopes one update early: total_steps counts updates, both ends included
    theirs = OneCycleLR(sgd(), 1.0, total_steps=101, pct_start=0.31 * 100 / 101, final_div_factor=400)
    assert torch_s(theirs, 100) == pytest.approx([one_cycle(k / 100, 0.3) for k in range(100)])


def test_the_cosine_is_torch_s_after_a_line_up() -> None:
    optimizer = sgd()
    up, down = LinearLR(optimizer, 1 / 25, total_iters=20), CosineAnnealingLR(optimizer, T_max=80)
    theirs = SequentialLR(optimizer, [up, down], milestones=[20])
    assert torch_s(theirs, 100) == pytest.approx([cosine(k / 100, 0.2) for k in range(100)])
    assert cosine(1, 0.2) == 0


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "plateau", "constant"])
def test_every_schedule_rises_to_the_peak_where_the_warm_up_ends(schedule: str) -> None:
    found = rates(plan(schedule=schedule, warm_up=0.2))
    assert found[0] == pytest.approx(0.5 / 25)
    assert found[:21] == sorted(found[:21])
    assert max(found) == found[20] == 0.5


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "plateau", "constant"])
def test_without_a_warm_up_every_schedule_begins_at_its_peak(schedule: str) -> None:
    assert rates(plan(schedule=schedule, warm_up=0.0))[0] == 0.5


def test_a_constant_rate_stays() -> None:
    assert set(rates(plan(schedule="constant", warm_up=0.0))) == {0.5}
    assert rise(0.7, 0.2) == rise(1, 0.2) == 1


def test_on_a_plateau_each_evaluation_without_a_new_best_divides_by_four() -> None:
    course = (3.0, 2.5, 2.6, 2.5, 2.4, 2.5)
    assert [setbacks(course[:k]) for k in range(7)] == [0, 0, 0, 1, 2, 2, 3]
    of = plan(schedule="plateau", warm_up=0.0)
    assert learning_rate(of, 60, course) == 0.5 / 4**3
    assert learning_rate(plan(schedule="constant", warm_up=0.0), 60, course) == 0.5


def test_the_plateau_is_torch_s() -> None:
    course = (3.0, 2.5, 2.6, 2.5, 2.4, 2.5, 2.3, 2.3)
    optimizer = sgd()
    theirs = ReduceLROnPlateau(optimizer, factor=1 / 4, patience=0, threshold=0)
    of = plan(schedule="plateau", warm_up=0.0, learning_rate=1.0)
    for k, nats in enumerate(course, start=1):
        theirs.step(nats)
        assert learning_rate(of, 10 * k, course[:k]) == optimizer.param_groups[0]["lr"]
