"""The tour: its pictures are those that its command draws, and what it says of them holds."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from examples import tour, tour_gradients, tour_memory

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "understanding-lstms.md").read_text()


def test_the_page_shows_every_picture_of_the_command_and_no_other() -> None:
    shown = re.findall(r"!\[.+\]\(pictures/([\w-]+)\.svg\)", PAGE)
    assert sorted(shown) == sorted(tour.PICTURES)
    assert sorted(path.stem for path in (ROOT / "docs" / "pictures").iterdir()) == sorted(shown)


def test_every_picture_is_followed_by_a_sentence_that_says_what_to_look_for() -> None:
    for part in PAGE.split("![")[1:]:
        assert re.match(r".+\n\n\*(Look|Count)\b", part), part[:60]


@pytest.mark.parametrize("name", ["counting", "closed-form"])
def test_a_picture_is_the_same_whenever_it_is_drawn(name: str) -> None:
    drawn = tour.draw(name)
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    torch.rand(3)
    assert tour.draw(name) == drawn
    assert len(drawn) < 100_000


@pytest.mark.parametrize(
    "file", sorted((ROOT / "docs" / "pictures").glob("*.svg")), ids=lambda file: file.stem
)
def test_the_committed_pictures_are_small_and_point_nowhere(file: Path) -> None:
    text = file.read_text()
    assert len(text) < 100_000
    assert not re.search(r'href="(?!#)', text)


def test_half_lives_are_as_the_page_says() -> None:
    half_life = tour_gradients._half_life
    assert float(half_life(torch.tensor(1.0))) == pytest.approx(2.2, abs=0.05)
    assert float(half_life(torch.tensor(0.0))) == pytest.approx(1)


def test_an_lstm_counts_and_a_gru_does_not() -> None:
    ones_TBI = torch.ones(100, 1, 1)
    counted = tour_memory._states(tour_memory._counting_lstm(), ones_TBI, "cell")
    averaged = tour_memory._states(tour_memory._averaging_gru(), ones_TBI, "hidden")
    assert counted.tolist() == pytest.approx(list(range(1, 101)), rel=1e-4)
    assert averaged.max() <= 1
    assert averaged[99] - averaged[98] < 1e-4


def test_a_name_that_is_no_picture_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="no picture nonsense: expected one of highway"):
        tour.main(["nonsense"])
