"""Tasks whose examples are drawn: what is asked, what counts, and that it can be learnt."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoint import load_checkpoint
from model.data.placed import DataError
from model.recipe import Recipe, RecipeError
from model.tasks.counting import strings
from model.tasks.task import NOT_COUNTED, Task
from model.tasks.tasks import load_data, task_of
from model.training import Training


def recipe(task: str, steps: int, **training: Any) -> Recipe:
    sizes = {"hidden": 16, "layers": 1} | ({} if task == "adding" else {"embedding": 4})
    plan = {"updates": 200, "streams": 32, "learning_rate": 0.02, "evaluate_every": 200} | training
    return Recipe.from_document(
        {"task": task, "data": {"held_out": 300}, "model": sizes, "training": plan | {"steps": steps}}
    )


def task(name: str, steps: int) -> Task:
    made = recipe(name, steps)
    return task_of(made, load_data(made))


def trained(made: Recipe, folder: Path) -> dict[str, float]:
    training = Training(made, load_data(made), folder)
    list(training.updates())
    return training.task.test(load_checkpoint(folder).model)


def test_two_numbers_are_marked_one_in_each_half_and_their_sum_is_asked_for() -> None:
    (inputs,), targets = task("adding", 11).batch(3)
    marks = inputs[..., 1]
    assert (marks[:, :5].sum(dim=1) == 1).all()
    assert (marks[:, 5:].sum(dim=1) == 1).all()
    torch.testing.assert_close(targets[:, -1, 0], (inputs[..., 0] * marks).sum(dim=1))
    assert targets[:, :-1].isnan().all()


def test_whoever_always_answers_one_is_wrong_by_a_sixth() -> None:
    made = task("adding", 20)
    targets = torch.cat([made.batch(k).targets for k in range(100)])
    assert float(made.loss(torch.ones_like(targets), targets)) == pytest.approx(1 / 6, rel=0.05)


def test_ten_symbols_are_asked_for_again_after_the_sign() -> None:
    (tokens,), targets = task("copy", 25).batch(0)
    assert torch.equal(tokens[:, :10], targets[:, -10:])
    assert (tokens[:, 14] == 9).all()
    assert (tokens[:, 10:14] == 8).all()
    assert (tokens[:, 15:] == 8).all()
    assert (targets[:, :-10] == 8).all()


def test_whoever_remembers_nothing_has_the_nats_that_are_said() -> None:
    made = task("copy", 25)
    targets = made.batch(0).targets
    logits = torch.full((*targets.shape, 10), -100.0)
    logits[:, :-10, 8] = 0
    logits[:, -10:, :8] = 0
    nats = float(made.loss(logits, targets))
    assert nats == pytest.approx(10 * math.log(8) / 25)
    assert made.figures(nats)["of_memoryless"] == pytest.approx(1)


def test_a_copy_needs_room_for_its_symbols() -> None:
    with pytest.raises(DataError, match="steps: expected 21 or more, came 20"):
        task("copy", 20)


def test_only_what_is_certain_of_a_string_counts() -> None:
    batch = strings(torch.tensor([2, 1]), 3)
    assert batch.inputs[0].tolist() == [[0, 1, 1, 2, 2, 0, 0], [0, 1, 2, 0, 0, 0, 0]]
    no = NOT_COUNTED
    assert batch.targets.tolist() == [[1, no, no, 2, 0, no, no], [1, no, 0, no, no, no, no]]


@pytest.mark.parametrize(("name", "steps"), [("adding", 10), ("copy", 25), ("counting", 9)])
def test_no_two_batches_are_the_same_and_none_changes(name: str, steps: int) -> None:
    made = task(name, steps)
    assert torch.equal(made.batch(4).inputs[0], made.batch(4).inputs[0])
    assert not torch.equal(made.batch(4).inputs[0], made.batch(5).inputs[0])


@pytest.mark.parametrize(("name", "steps"), [("adding", 10), ("copy", 25), ("counting", 9)])
def test_an_evaluation_leaves_the_generator_and_the_mode_alone(name: str, steps: int) -> None:
    made = task(name, steps)
    model = made.new_model().train()
    before = torch.get_rng_state()
    assert made.evaluate(model) == made.evaluate(model)
    assert torch.equal(before, torch.get_rng_state())
    assert model.training


def test_adding_is_learnt(tmp_path: Path) -> None:
    assert trained(recipe("adding", 8, updates=500), tmp_path)["test_mse"] < 0.02


def test_counting_is_learnt_and_told_apart_from_remembering_strings(tmp_path: Path) -> None:
    figures = trained(recipe("counting", 9, updates=500), tmp_path)
    assert figures["trained_n"] == 4
    assert figures["right_up_to_n"] >= 4
    fresh = task("counting", 9)
    assert fresh.test(fresh.new_model())["right_up_to_n"] < 4


def test_a_drawn_task_takes_no_other_data() -> None:
    with pytest.raises(RecipeError, match=r"data\.source: Input should be 'generated'"):
        recipe("adding", 8).with_source("stdlib")


def test_a_drawn_task_has_no_streams_to_move_on_in() -> None:
    with pytest.raises(RecipeError, match=r"expected no training\.stride"):
        recipe("adding", 8, stride=2)


def test_a_training_that_was_stopped_ends_where_it_would_have_ended(tmp_path: Path) -> None:
    made = recipe("adding", 8, updates=6, evaluate_every=3)
    whole = Training(made, load_data(made), tmp_path / "whole")
    losses = [update.loss for update in whole.updates()]
    part = Training(made, load_data(made), tmp_path / "part")
    updates = part.updates()
    first = [next(updates).loss for _ in range(4)]
    part.save()
    again = Training(made, load_data(made), tmp_path / "part", resume=True)
    assert first + [update.loss for update in again.updates()] == losses
    assert np.isfinite(losses).all()
