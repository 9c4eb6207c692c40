"""What has no export form yet is refused in one line; what only acts while training is not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from export.characters import characters_model
from export.door import export_checkpoint
from export.errors import ExportError
from model.checkpoint import Checkpoint
from model.model_recipe import ModelRecipe
from model.tasks.characters import CharacterModel
from model.tasks.numbers import NumberModel
from tests.models import SYMBOLS, tiny_checkpoint


def checkpoint(**settings: Any) -> Checkpoint:
    sizes = ModelRecipe.model_validate({"embedding": 8, "hidden": 8, "layers": 2} | settings)
    return replace(tiny_checkpoint(), model=CharacterModel(len(SYMBOLS), sizes).eval())


def test_a_checkpoint_of_another_task_is_refused() -> None:
    model = NumberModel(2, 1, ModelRecipe(hidden=4, layers=1))
    with pytest.raises(ExportError, match="expected a checkpoint of a task that reads symbols, got 'adding'"):
        characters_model(replace(tiny_checkpoint(), task="adding", model=model))


@pytest.mark.parametrize(
    "settings",
    [
        {"dropout": {"hidden": 0.5, "weight": 0.5, "output": 0.5, "untied": True}},
        {"checkpointing": True, "activation_penalty": 2.0},
    ],
)
def test_what_acts_on_training_alone_is_exported_as_ever(settings: dict[str, Any]) -> None:
    model = characters_model(checkpoint(**settings))
    assert [node.op_type for node in model.graph.node].count("LSTM") == 2


def test_shared_and_tied_weights_are_exported_and_pass_the_comparison_with_pytorch(tmp_path: Path) -> None:
    written = export_checkpoint(checkpoint(tie=True, share=True), tmp_path / "tied", 1)
    assert written.file.is_file()
