"""What the documents say, held against the code."""

import json
import re
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from cli.main import COMMANDS
from model.recipe import Recipe
from model.training_recipe import TrainingRecipe
from service.housekeeping import add_gauges
from service.metrics import Metrics
from service.readiness import Readiness
from service.settings import Settings
from tests.fakes import Harness

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
README = (ROOT / "README.md").read_text()
TRAINING = (ROOT / "docs" / "training.md").read_text()


def test_every_setting_is_in_the_operations_page_with_its_default() -> None:
    rows = [line for line in OPERATIONS.splitlines() if line.startswith("| `--")]
    for name, field in Settings.model_fields.items():
        (row,) = [row for row in rows if f"`--{name.replace('_', '-')}`" in row]
        if field.default is not None and not field.is_required():
            default = int(field.default) if isinstance(field.default, float) else field.default
            default = "off" if default is False else default
            assert str(default) in row, row


def test_every_metric_is_in_the_operations_page_and_no_other() -> None:
    metrics, harness = Metrics(), Harness()
    add_gauges(metrics, harness.engine, Readiness())
    names = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in metrics.registry.collect()
    }
    table = OPERATIONS.split("## Metrics")[1].split("## Logs")[0]
    assert set(re.findall(r"`(carousel_\w+)`", table)) == names


@pytest.mark.parametrize("file", ["deploy/alerts.yml"])
def test_alert_rules_ask_for_metrics_that_exist(file: str) -> None:
    asked = set(re.findall(r"carousel_\w+", (ROOT / file).read_text()))
    assert asked <= set(re.findall(r"carousel_\w+", OPERATIONS))


def test_every_command_is_in_the_readme() -> None:
    for command in COMMANDS:
        assert f"`carousel {command}" in README


def test_every_module_of_the_service_is_in_the_architecture_page() -> None:
    modules = {path.stem for path in (ROOT / "service").glob("*.py")} - {"__init__", "errors"}
    table = ARCHITECTURE.split("## The serving half")[1].split("What holds")[0]
    assert modules == {
        name
        for row in table.splitlines()
        for name in re.findall(r"`(\w+)`", row.split("| ")[1] if "| " in row else "")
    }


def test_the_picture_of_the_house_has_the_floors_of_the_import_rules() -> None:
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    floors = [
        re.findall(r"\w+", floor)
        for floor in next(rule for rule in rules if rule["type"] == "layers")["layers"]
    ]
    picture = ARCHITECTURE.split("```")[1]
    drawn = [line for line in picture.splitlines() if re.search(r"\b(cli|export|carousel)\b", line)]
    heights = {
        name: next(k for k, line in enumerate(drawn) if re.search(rf"\b{name}\b", line))
        for floor in floors
        for name in floor
    }
    for higher, lower in pairwise(floors):
        assert max(heights[name] for name in higher) <= min(heights[name] for name in lower)


def keys(section: type[BaseModel]) -> Iterator[str]:
    """All keys of a section of a recipe, and of the tables in it."""
    for name, field in section.model_fields.items():
        yield name
        for inner in sections(field.annotation):
            yield from keys(inner)


def sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from sections(argument)


def test_every_key_of_a_recipe_is_in_the_training_page() -> None:
    code = " ".join(re.findall(r"`[^`\n]+`", TRAINING))
    assert [key for key in keys(Recipe) if not re.search(rf"\b{key}\b", code)] == []


def test_the_table_of_training_has_its_keys_in_their_order_with_their_defaults() -> None:
    table = TRAINING.split("## `[training]`")[1].split("###")[0]
    rows = re.findall(r"^\| `(\w+)` \|(.*?)\|", table, flags=re.MULTILINE)
    fields = TrainingRecipe.model_fields
    assert [key for key, _ in rows] == list(fields)
    for key, default in rows:
        said = "" if fields[key].is_required() else json.dumps(fields[key].default)
        assert default.strip("` ").replace("none", "null") == said, key
