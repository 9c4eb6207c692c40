"""Anomalies: the arithmetic of the score by hand, and that no surprise knows what comes after it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.checkpoint import load_checkpoint
from model.data.placed import DataError
from model.data.watched import Watched, load_watched, spikes
from model.data_recipe import WatchedData
from model.recipe import Recipe
from model.tasks.anomalies import Anomalies
from model.tasks.nab_score import nab_score
from model.tasks.surprise import surprises
from model.tasks.tasks import load_data
from model.training import Training

S = lambda y: 2 / (1 + np.exp(5 * y)) - 1  # noqa: E731 - the formula of the source
ROWS, FIRST, LAST = 1000, 500, 599
SERIES = (Watched("x", np.zeros(ROWS), ((FIRST, LAST),)),)


def score_of(*rows: int) -> float:
    scores = np.zeros(ROWS)
    scores[list(rows)] = 1
    assert nab_score(SERIES, [scores + (np.arange(ROWS) < 0)])[0] >= 0
    return nab_score(SERIES, [np.where(scores > 0, 1.0, -np.inf)])[0]


def recipe(**training: Any) -> Recipe:
    plan = {"updates": 60, "streams": 16, "steps": 40, "learning_rate": 0.01, "evaluate_every": 60} | training
    data, model = {"source": "spikes"}, {"hidden": 16, "layers": 1}
    return Recipe.from_document({"task": "anomalies", "data": data, "model": model, "training": plan})


def test_the_first_row_of_a_window_is_worth_everything_and_nothing_found_is_worth_nothing() -> None:
    assert score_of(FIRST) == pytest.approx(100)
    assert score_of() == 0


def test_a_later_detection_is_worth_less_and_the_earliest_one_counts() -> None:
    middle = 100 * (1 + S(-0.5) / S(-1)) / 2
    assert score_of(550) == pytest.approx(middle)
    assert score_of(550, 570, 599) == pytest.approx(middle)


def test_false_detections_cost_little_near_a_window_and_most_far_from_it() -> None:
    assert 100 - score_of(FIRST, 200) == pytest.approx(100 * 0.11 / 2)  # before any window
    assert 100 - score_of(FIRST, 610) == pytest.approx(-100 * 0.11 * S(11 / 99) / 2)
    assert 100 - score_of(FIRST, 999) == pytest.approx(100 * 0.11 / 2)


def test_what_happens_in_the_probation_is_not_judged() -> None:
    assert SERIES[0].probation == 150
    assert score_of(FIRST, *range(150)) == pytest.approx(100)
    assert score_of(FIRST, 150) < 99


def test_one_threshold_serves_all_series_and_equal_scores_stand_or_fall_together() -> None:
    both = (*SERIES, Watched("y", np.zeros(ROWS), ((300, 399),)))
    one, other = np.zeros(ROWS), np.zeros(ROWS)
    one[FIRST], other[300], other[700] = 2, 1, 1
    # At 1 the second window is found and a row far from it is detected falsely.
    assert nab_score(both, [one, other]) == (pytest.approx(100 * (4 - 0.11) / 4), 1)
    other[700] = 3
    assert nab_score(both, [one, other])[1] == 1


def test_no_surprise_depends_on_what_comes_after_it() -> None:
    errors = np.random.default_rng(0).exponential(size=400)
    changed = errors.copy()
    changed[300:] = 1e6
    np.testing.assert_array_equal(surprises(errors)[:300], surprises(changed)[:300])


def test_a_jump_of_the_errors_is_the_greatest_surprise_and_told_once() -> None:
    errors = np.random.default_rng(0).exponential(size=800)
    errors[600:610] += 20
    found = surprises(errors)
    assert 600 <= found.argmax() < 610
    assert (found[found.argmax() + 1 : found.argmax() + 50] == 0).all()


def test_errors_that_are_all_the_same_are_no_surprise() -> None:
    assert (surprises(np.full(50, 3.0)) == 0).all()


def test_nothing_after_the_beginnings_is_learnt_from() -> None:
    made = recipe()
    found = load_data(made)
    task = Anomalies(made, found)  # type: ignore[arg-type]
    for one in found.series:
        one.values_N[one.probation :] = 1e9
    other = Anomalies(made, found)  # type: ignore[arg-type]
    assert all((task.batch(k).targets == other.batch(k).targets).all() for k in range(5))
    assert task.evaluate(task.new_model().eval()) > 0


def test_planted_spikes_are_found(tmp_path: Path) -> None:
    made = recipe()
    training = Training(made, load_data(made), tmp_path)
    list(training.updates())
    assert training.task.test(load_checkpoint(tmp_path).model)["nab_score"] > 50


def test_series_are_generated_the_same_every_time() -> None:
    one, other = spikes(), spikes()
    assert all(np.array_equal(a.values_N, b.values_N) for a, b in zip(one, other, strict=True))
    assert all(a.probation < first for a in one for first, _ in a.windows)


def test_the_benchmark_says_where_it_has_to_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CAROUSEL_DATA", raising=False)
    with pytest.raises(DataError, match="CAROUSEL_DATA is not set; expected the folder that holds nab/"):
        load_watched(WatchedData(source="nab"))
    monkeypatch.setenv("CAROUSEL_DATA", str(tmp_path))
    with pytest.raises(DataError, match="combined_windows"):
        load_watched(WatchedData(source="nab"))


def test_steps_have_to_fit_into_the_beginnings() -> None:
    made = recipe(steps=400)
    with pytest.raises(DataError, match="expected steps of 239 or less, came 400"):
        Anomalies(made, load_data(made))  # type: ignore[arg-type]
