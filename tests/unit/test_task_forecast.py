"""Forecasts: what is read, what is wanted, whose scale it is, and that nothing is seen of what is to come."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from model.checkpoint import load_checkpoint
from model.data.placed import DataError
from model.data.series import Series, calendar, load_series
from model.data_recipe import SeriesData
from model.recipe import Recipe, RecipeError, SeriesRecipe
from model.tasks.forecast import Forecast, Ports
from model.tasks.numbers import NumberModel
from model.tasks.tasks import load_data
from model.training import Training

COLUMNS = {"values": ["load"], "past": ["temperature"], "known": ["event"]}


def recipe(data: dict[str, Any] | None = None, **training: Any) -> SeriesRecipe:
    plan = {
        "updates": 150,
        "streams": 16,
        "steps": 24,
        "learning_rate": 0.01,
        "evaluate_every": 150,
    } | training
    made = Recipe.from_document(
        {
            "task": "forecast",
            "data": {"source": "waves", "horizon": 3} | COLUMNS | (data or {}),
            "model": {"hidden": 16, "layers": 1},
            "training": plan,
        }
    )
    assert isinstance(made, SeriesRecipe)
    return made


def series(*columns: np.ndarray) -> Series:
    return Series(tuple("abc"[: len(columns)]), np.stack(columns, axis=1), "0" * 64)


def trained(made: SeriesRecipe, folder: Path) -> dict[str, float]:
    training = Training(made, load_data(made), folder)
    list(training.updates())
    return training.task.test(load_checkpoint(folder).model)


def test_a_step_reads_its_own_columns_and_what_is_known_of_the_steps_ahead() -> None:
    ports = Ports(SeriesData(source="-", values=("v",), past=("p",), known=("k",), horizon=2))
    rows = torch.tensor([[[t, 10.0 + t, 100.0 + t] for t in range(5)]])
    assert ports.read(rows)[0].tolist() == [[0, 10, 101, 102], [1, 11, 102, 103], [2, 12, 103, 104]]
    assert ports.wanted(rows)[0].tolist() == [[1, 2], [2, 3], [3, 4]]
    assert ports.follows == (0, 0)


def test_whoever_goes_on_from_its_own_forecasts_also_forecasts_what_it_reads() -> None:
    data = SeriesData(source="-", values=("v",), past=("p",), known=("k",), horizon=9, recursive=True)
    rows = torch.tensor([[[t, 10.0 + t, 100.0 + t] for t in range(3)]])
    assert Ports(data).read(rows)[0].tolist() == [[0, 10, 101], [1, 11, 102]]
    assert Ports(data).wanted(rows)[0].tolist() == [[1, 11], [2, 12]]


def test_the_scales_are_those_of_the_training_part_alone() -> None:
    data = {"values": ["a"], "past": [], "known": []}
    calm, wild = np.sin(np.arange(300.0)), 1e6 * np.ones(200)
    task = Forecast(recipe(data), series(np.concatenate([calm, wild])))
    model = task.new_model()
    assert_close(model.center_in, torch.tensor([calm.mean()]).float())
    assert_close(model.scale_out, torch.full((3,), calm.std()).float())


def test_a_column_that_never_changes_is_no_division_by_zero() -> None:
    task = Forecast(recipe({"values": ["a"], "past": [], "known": []}), series(np.full(500, 7.0)))
    assert task.evaluate(task.new_model()) < 1


@pytest.mark.parametrize("recursive", [False, True])
def test_no_forecast_depends_on_values_that_are_still_to_come(recursive: bool) -> None:
    made = recipe({"recursive": recursive})
    task, model = Forecast(made, load_series(made.data)), None
    model = task.new_model()
    rows = torch.randn(2, 24 + 3, 3)
    changed = rows.clone()
    changed[:, 24:, :2] += 100  # the values and the past columns; what is known ahead stays
    assert torch.equal(task._forecasts(model, rows), task._forecasts(model, changed))
    changed[:, 24:, 2] += 100
    assert not torch.equal(task._forecasts(model, rows), task._forecasts(model, changed))


def test_what_is_known_ahead_makes_forecasts_better(tmp_path: Path) -> None:
    """An event adds 2 to a load whose standard deviation is about 1.3."""
    seeing = trained(recipe(), tmp_path / "seeing")["test_mse"]
    blind = trained(recipe({"known": []}), tmp_path / "blind")["test_mse"]
    assert seeing < 0.5 * blind


def test_going_on_from_its_own_forecasts_is_learnt_too(tmp_path: Path) -> None:
    assert trained(recipe({"recursive": True}), tmp_path)["test_mse"] < 0.3


def test_a_model_that_reads_changes_does_not_care_for_the_level() -> None:
    torch.manual_seed(0)
    model = NumberModel(2, 1, recipe().model, follows=(0,), changes=1)
    x = torch.randn(3, 7, 2)
    lifted = x + torch.tensor([5.0, 0.0])
    (low, _), (high, _) = (model(inputs, model.initial_state(3)) for inputs in (x, lifted))
    assert_close(high, low + 5)
    still, _ = model(x + torch.tensor([0.0, 5.0]), model.initial_state(3))
    assert not torch.allclose(still, low)


def test_changes_are_the_same_step_by_step_and_at_once() -> None:
    torch.manual_seed(0)
    model = NumberModel(2, 1, recipe().model, follows=(0,), changes=2)
    x, state = torch.randn(3, 7, 2), model.initial_state(3)
    whole, after = model(x, state)
    steps = []
    for t in range(7):
        y, state = model(x[:, t : t + 1], state)
        steps.append(y)
    assert_close(torch.cat(steps, dim=1), whole)
    assert_close(state, after)


def test_every_window_of_a_part_is_measured_once() -> None:
    data = {"values": ["a"], "past": [], "known": []}
    task = Forecast(recipe(data), series(np.arange(500.0)))
    starts = [float(rows[0, 24]) for part in task._windows("test") for rows in part.split(1)]
    assert starts == list(range(400, 498))  # the first row that is forecast; the part has 100, the horizon 3


def test_a_batch_depends_on_seed_and_number_alone() -> None:
    made = recipe()
    one, other = (Forecast(made, load_series(made.data)) for _ in range(2))
    assert torch.equal(one.batch(5).targets, other.batch(5).targets)
    assert not torch.equal(one.batch(5).targets, one.batch(6).targets)
    assert not torch.equal(
        one.batch(5).targets, Forecast(recipe(seed=1), load_series(made.data)).batch(5).targets
    )


def test_a_table_is_read_in_the_order_of_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("date,x,y\n2020-01-06 00:00:00,1,2\n2020-01-06 06:00:00,3,4\n")
    found = load_series(
        SeriesData(source=str(file), values=("y",), past=("x",), known=("hour.sin", "weekday.cos"))
    )
    assert found.names == ("y", "x", "hour.sin", "weekday.cos")
    assert_close(found.numbers_NC[:, :3], np.array([[2, 1, 0], [4, 3, 1.0]]))
    assert found.numbers_NC[0, 3] == 1  # the week begins on Monday at midnight


def test_the_calendar_says_the_same_a_week_later() -> None:
    one = datetime(2021, 5, 5, 13, 30)
    found = calendar([one, one + timedelta(days=7), one + timedelta(days=1)])
    assert all(np.isclose(column[0], column[1]) for column in found.values())
    assert np.isclose(found["hour.sin"][0], found["hour.sin"][2])
    assert not np.isclose(found["weekday.sin"][0], found["weekday.sin"][2])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a,b\n1,2\n", "no column y, expected one of"),
        ("y\n1\nnan\n", "y of row 2 is no finite number"),
        ("y\n1\ntwo\n", "not a table of numbers: .*two"),
        ("y,z\n1,2\n3\n", "not a table of numbers"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(text: str, line: str, tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=line):
        load_series(SeriesData(source=str(file), values=("y",), past=("z",) if "z" in text else ()))


def test_a_series_that_is_too_short_says_how_long_it_has_to_be() -> None:
    with pytest.raises(DataError, match="a part has 20 rows, a window needs 27"):
        Forecast(recipe({"values": ["a"], "past": [], "known": []}), series(np.arange(100.0)))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"data": {"source": "waves", "values": ["load"], "past": ["load"]}},
            "each column once, came load again",
        ),
        ({"model": {"hidden": 4, "layers": 1, "embedding": 4}}, "task forecast reads numbers"),
        ({"data": {"source": "waves", "values": []}}, "data.values"),
        ({"data": {"source": "waves", "values": ["load"], "characters": 5}}, "data.characters: unknown key"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_line(change: dict[str, Any], line: str) -> None:
    with pytest.raises(RecipeError, match=line):
        Recipe.from_document(recipe().model_dump() | change)
