"""`docs/training.md` against the recipe: every key of `[model]`, with its default."""

from pathlib import Path

import pytest

from model.cells import CELLS
from model.model_recipe import DropoutRecipe, InitialiseRecipe, ModelRecipe, ZoneoutRecipe
from model.section import Section

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text()


def part(heading: str) -> str:
    """The text below a heading, up to the next one."""
    _, found = PAGE.split(f"\n{heading}\n")
    return found.split("\n## ")[0].split("\n### ")[0]


@pytest.mark.parametrize(
    ("heading", "section"),
    [
        ("## `[model]`", ModelRecipe),
        ("### `[model.dropout]`", DropoutRecipe),
        ("### `[model.zoneout]`", ZoneoutRecipe),
        ("### `[model.initialise]`", InitialiseRecipe),
    ],
)
def test_every_key_of_the_model_is_documented_with_its_default(heading: str, section: type[Section]) -> None:
    rows = [line.split(" | ") for line in part(heading).splitlines() if line.startswith("| `")]
    keys = {row[0].removeprefix("| ").strip("`"): row for row in rows}
    assert keys.keys() == section.model_fields.keys()
    for name, field in section.model_fields.items():
        if isinstance(field.default, bool) and section is not DropoutRecipe:
            assert keys[name][1].strip("`") == str(field.default).lower()
        elif isinstance(field.default, float) and section is not DropoutRecipe:
            assert float(keys[name][1]) == field.default


def test_every_cell_has_its_options_documented() -> None:
    text = part("### `cell`")
    assert all(f"`{kind}`" in text for kind in CELLS)
