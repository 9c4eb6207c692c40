"""`carousel reproduce`: what is written into the table of results, and what is not."""

from pathlib import Path

import pytest

from cli.main import main
from cli.reproduce import RESULTS, with_row
from model.recipe import SHIPPED, read_recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """
task = "counting"
[data]
held_out = 50
[model]
embedding = 2
hidden = 4
layers = 1
[training]
updates = {updates}
streams = 4
steps = 5
learning_rate = 0.01
evaluate_every = 5
[target]
figure = "right_up_to_n"
{target}
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page with two rows of others, and a note below."""
    head = next(line for line in (ROOT / RESULTS).read_text().splitlines() if line.startswith("| recipe |"))
    file = tmp_path / "results.md"
    file.write_text(f"# Results\n\n{head}\n|{'---|' * 10}\n| alpha | 1 |\n| zeta | 2 |\n\nNotes.\n")
    return file


def reproduce(folder: Path, page: Path, target: str, updates: int = 10) -> int:
    recipe = folder / "mine.toml"
    recipe.write_text(RECIPE.format(target=target, updates=updates))
    return main(["reproduce", str(recipe), "--results", str(page)])


def test_a_row_is_added_in_its_place_and_then_replaced(page: Path, tmp_path: Path) -> None:
    assert reproduce(tmp_path, page, "at_least = 0\nseeds = 2") == 0
    names = [line.split(" | ")[0] for line in page.read_text().splitlines() if line.startswith("| ")]
    assert names == ["| recipe", "| alpha", "| mine", "| zeta"]
    row = next(line for line in page.read_text().splitlines() if line.startswith("| mine"))
    assert ", reached" in row
    assert "≥ 0" in row
    assert "0 to 1" in row
    assert reproduce(tmp_path, page, "at_least = 1000") == 0
    after = page.read_text()
    assert after.count("| mine |") == 1
    assert "**not reached**" in after
    assert after.endswith("| zeta | 2 |\n\nNotes.\n")


def test_a_figure_from_memory_is_told_as_such(page: Path, tmp_path: Path) -> None:
    reproduce(tmp_path, page, 'at_least = 0\npublished = "5 (Somebody 1999)"')
    assert "5 (Somebody 1999) (not verified)" in page.read_text()
    reproduce(tmp_path, page, 'at_least = 0\npublished = "5 (Somebody 1999)"\nverified = true')
    assert "(not verified)" not in page.read_text()


def test_a_training_ends_when_its_time_is_over_and_the_row_says_so(page: Path, tmp_path: Path) -> None:
    reproduce(tmp_path, page, "at_least = 0\nminutes = 1e-9", updates=100_000)
    row = next(line for line in page.read_text().splitlines() if line.startswith("| mine"))
    assert "for 5 updates, cut off" in row


def test_a_mistake_is_one_line_before_anything_is_trained(
    page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce(tmp_path, tmp_path / "none.md", "at_least = 0") == 1
    assert "none.md: No such file" in capsys.readouterr().err
    page.write_text("# Results\n")
    assert reproduce(tmp_path, page, "at_least = 0") == 1
    assert "expected a table with the heading" in capsys.readouterr().err
    assert reproduce(tmp_path, page, "at_least = 0\nat_most = 1") == 1
    assert "expected at_most or at_least, one of the two" in capsys.readouterr().err
    assert main(["reproduce", "tinyshakespeare", "--results", str(page)]) == 1
    assert "expected a [target], came none" in capsys.readouterr().err


def test_a_figure_that_the_task_has_not_is_one_line(
    page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = RECIPE.format(target="at_least = 0", updates=5).replace("right_up_to_n", "beauty")
    (tmp_path / "mine.toml").write_text(text)
    assert main(["reproduce", str(tmp_path / "mine.toml"), "--results", str(page)]) == 1
    assert "no figure beauty: expected one of trained_n, right_up_to_n" in capsys.readouterr().err
    assert "mine" not in page.read_text()


def test_rows_are_those_of_shipped_recipes_with_a_target() -> None:
    targets = {path.stem for path in SHIPPED.glob("*.toml") if read_recipe(path).target is not None}
    lines = (ROOT / RESULTS).read_text().splitlines()
    rows = {line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")} - {"recipe"}
    assert rows <= targets


def test_a_row_does_not_touch_a_name_that_begins_like_it() -> None:
    lines = (ROOT / RESULTS).read_text().splitlines()
    head = next(k for k, line in enumerate(lines) if line.startswith("| recipe |"))
    page = "\n".join([lines[head], lines[head + 1], "| etth1-univariate | 1 |"]) + "\n"
    assert with_row(page, "| etth1 | 2 |").splitlines()[2:] == ["| etth1 | 2 |", "| etth1-univariate | 1 |"]
