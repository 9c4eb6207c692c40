"""What the documents say, held against the code."""

import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from cli.main import COMMANDS
from service.metrics import Metrics
from service.readiness import Readiness
from service.server import _watch
from service.settings import Settings
from tests.fakes import Harness

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
README = (ROOT / "README.md").read_text()


def test_every_setting_is_in_the_operations_page_with_its_default() -> None:
    rows = [line for line in OPERATIONS.splitlines() if line.startswith("| `--")]
    for name, field in Settings.model_fields.items():
        (row,) = [row for row in rows if f"`--{name.replace('_', '-')}`" in row]
        if field.default is not None and not field.is_required():
            default = int(field.default) if isinstance(field.default, float) else field.default
            assert str(default) in row, row


def test_every_metric_is_in_the_operations_page_and_no_other() -> None:
    metrics, harness = Metrics(), Harness()
    _watch(metrics, harness.engine, Readiness())
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
