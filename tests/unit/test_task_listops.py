"""ListOps: expressions are right, trees and texts ask for the same, and padding changes nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from export.door import export_checkpoint
from model.cells.gated import CellError
from model.checkpoint import load_checkpoint
from model.model_recipe import ModelRecipe
from model.recipe import Recipe
from model.tasks.listops import MOST_ARGUMENTS, NAMES, expression, value_of
from model.tasks.task import NOT_COUNTED, Task
from model.tasks.tasks import load_data, task_of
from model.tasks.trees import NO_NODE, TreeModel
from model.training import Training


def recipe(read: str, **training: Any) -> Recipe:
    plan = {
        "updates": 80,
        "streams": 32,
        "steps": 20,
        "learning_rate": 0.01,
        "evaluate_every": 80,
    } | training
    data, model = {"read": read, "held_out": 200}, {"embedding": 8, "hidden": 24, "layers": 1}
    return Recipe.from_document({"task": "listops", "data": data, "model": model, "training": plan})


def task(read: str) -> Task:
    made = recipe(read)
    return task_of(made, load_data(made))


def written(tokens: list[int]) -> str:
    return " ".join(NAMES[token] for token in tokens)


def evaluated(text: str) -> int:
    """Python's own reading of an expression."""
    code = (
        text.replace("[MAX ", "top(").replace("[MIN ", "low(").replace("[MED ", "mid(").replace("[SM ", "sm(")
    )
    code = code.replace(" ]", ")").replace(" ", ",")
    names = {
        "top": lambda *all_: max(all_),
        "low": lambda *all_: min(all_),
        "mid": lambda *all_: sorted(all_)[(len(all_) - 1) // 2],
        "sm": lambda *all_: sum(all_) % 10,
    }
    return int(eval(code, {"__builtins__": {}}, names))


def test_an_expression_has_the_value_that_python_finds() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        made = expression(rng, 30)
        assert evaluated(written(made.text)) == made.value
        assert len(made.text) <= 30


def test_the_nodes_of_a_tree_have_the_value_of_its_text() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        made = expression(rng, 30)
        values: list[int] = []
        for token, children in zip(made.nodes, made.children, strict=True):
            values.append(value_of(token, [values[k] for k in children]) if children else token)
        assert values[-1] == made.value
        assert max(map(len, made.children)) <= MOST_ARGUMENTS


def test_trees_and_texts_of_a_seed_ask_for_the_same() -> None:
    targets_BT = task("texts").batch(3).targets
    assert torch.equal(task("trees").batch(3).targets, targets_BT[targets_BT != NOT_COUNTED])


def test_a_tree_has_the_same_answer_beside_others() -> None:
    torch.manual_seed(0)
    made = task("trees")
    model, batch = made.new_model().eval(), made.batch(0)
    together, _ = model(*batch.inputs, ())
    for row in range(5):
        real = batch.inputs[0][row] != NO_NODE
        alone, _ = model(batch.inputs[0][row : row + 1, real], batch.inputs[1][row : row + 1, real], ())
        assert_close(together[row : row + 1], alone)


@pytest.mark.parametrize("read", ["trees", "texts"])
def test_expressions_are_learnt_and_go_through_the_same_door(read: str, tmp_path: Path) -> None:
    made = recipe(read)
    training = Training(made, load_data(made), tmp_path / "run")
    list(training.updates())
    checkpoint = load_checkpoint(tmp_path / "run")
    assert training.task.test(checkpoint.model)["test_accuracy"] > 0.3  # guessing: about 0.15
    contract = export_checkpoint(checkpoint, tmp_path / "listops", 1).contract
    assert (contract.task, contract.kind) == ("listops", "whole" if read == "trees" else "step")
    assert contract.provenance.recipe["data"]["read"] == read


@pytest.mark.parametrize("change", [{"layers": 2}, {"cell": "gru"}, {"dropout": 0.1}, {"tie": True}])
def test_what_trees_cannot_have_is_refused(change: dict[str, Any]) -> None:
    sizes = ModelRecipe.model_validate({"embedding": 8, "hidden": 8, "layers": 1} | change)
    with pytest.raises(CellError, match="trees: expected one layer of plain LSTM"):
        TreeModel(5, 3, sizes)
