"""Recipes: what is accepted, and the one line that names a mistake."""

from pathlib import Path

import pytest

from model.recipe import SHIPPED, RecipeError, find_recipe, read_recipe

GOOD = """
task = "characters"
[data]
source = "stdlib"
[model]
embedding = 8
hidden = 16
layers = 1
[training]
updates = 10
streams = 2
steps = 4
learning_rate = 1e-3
evaluate_every = 5
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("recipe", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_a_recipe_and_found_by_its_name(recipe: Path) -> None:
    found = read_recipe(find_recipe(recipe.stem))
    assert found.from_document(found.model_dump()) == found


def test_a_recipe_survives_a_round_trip_through_its_document(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, GOOD))
    assert recipe.from_document(recipe.model_dump()) == recipe


def test_another_source_changes_nothing_else(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, GOOD))
    assert recipe.with_source("stdlib") == recipe
    assert recipe.with_source("elsewhere").data.source == "elsewhere"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("hidden = 16", "hiden = 16", r"model\.hiden: unknown key"),
        ("hidden = 16\n", "", r"model\.hidden: expected a value, came none"),
        ("layers = 1", "layers = 1\nheads = 2", r"model\.heads: unknown key"),
        ("hidden = 16", "hidden = '16'", r"model\.hidden: Input should be a valid integer \(came: '16'\)"),
        ("streams = 2", "streams = 0", r"training\.streams: .* greater than or equal to 1 \(came: 0\)"),
        ("learning_rate = 1e-3", "learning_rate = -1", r"training\.learning_rate: .* greater than 0"),
        (
            'task = "characters"',
            'task = "poems"',
            r"task: Input should be 'characters', .* \(came: 'poems'\)",
        ),
        ("[model]", "[model", r"at line 5"),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_key(old: str, new: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=rf"recipe\.toml: .*{line}") as raised:
        read_recipe(written(tmp_path, GOOD.replace(old, new)))
    assert "\n" not in str(raised.value)


def test_an_unknown_name_is_answered_with_the_shipped_ones() -> None:
    with pytest.raises(
        RecipeError, match=r"no recipe demo: expected a \.toml file or one of .*characters-demo, .*tiny"
    ):
        find_recipe("demo")


def test_a_path_that_is_not_there_is_named() -> None:
    with pytest.raises(RecipeError, match=r"no recipe gone/away\.toml"):
        find_recipe("gone/away.toml")
