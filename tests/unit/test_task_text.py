"""Words: what a word is, and that words are learnt as characters are."""

from pathlib import Path

import pytest
import torch

from export.door import export_checkpoint
from model.checkpoint import load_checkpoint
from model.data import sources
from model.data.corpus import load_corpus
from model.data.sources import docstrings_of, read_texts
from model.data.vocabulary import UNKNOWN_SYMBOL, Words, words_of
from model.data_recipe import DataRecipe
from model.recipe import Recipe
from model.tasks.tasks import load_data
from model.training import Training

ROSE = "A rose is a rose.\nIs a rose a rose?\n" * 60


def test_words_are_lower_case_and_marks_and_line_ends_are_words() -> None:
    assert words_of("It's  self.x,\n done") == ["it", "'", "s", "self", ".", "x", ",", "\n", "done"]


def test_the_most_frequent_words_stay_and_the_rest_is_unknown() -> None:
    words = Words.of_text("b b b c c a a d", 4)
    assert words.symbols == (UNKNOWN_SYMBOL, "a", "b", "c")
    assert words.encode("a b c d B").tolist() == [1, 2, 3, 0, 2]


MODULE = '''"""About it."""
text = """no docstring"""
class One:
    """A class.

        With an example.
    """
    def two(self): "A method."
def silent(): pass
'''


def test_docstrings_are_read_and_nothing_else_of_a_module() -> None:
    assert list(docstrings_of(MODULE)) == ["About it.\n", "A class.\n\nWith an example.\n", "A method.\n"]


def test_docstrings_of_the_standard_library_are_a_text_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_standard_library", lambda: [MODULE, "x = 1", MODULE])
    assert [text.count("\n") for text in read_texts("docstrings")] == [7, 7]


def test_words_are_learnt_and_go_through_the_same_door(tmp_path: Path) -> None:
    (tmp_path / "text").write_text(ROSE)
    recipe = Recipe.from_document(
        {
            "task": "words",
            "data": {"source": str(tmp_path / "text"), "vocabulary": 20},
            "model": {"embedding": 8, "hidden": 16, "layers": 1},
            "training": {
                "updates": 120,
                "streams": 4,
                "steps": 12,
                "learning_rate": 0.03,
                "evaluate_every": 120,
            },
        }
    )
    training = Training(recipe, load_data(recipe), tmp_path / "run")
    list(training.updates())
    figures = training.measure()
    assert figures["perplexity"] == pytest.approx(torch.tensor(figures["validation_nats"]).exp().item())
    assert figures["perplexity"] < 1.5  # 7 words, and only where a rose ends is a question
    contract = export_checkpoint(load_checkpoint(tmp_path / "run"), tmp_path / "roses", 1).contract
    assert contract.inputs[0].vocabulary == load_corpus(recipe.data, Words).names  # type: ignore[arg-type]
    assert (contract.task, contract.outputs[0].feeds) == ("words", "tokens")


def test_characters_stay_what_they_were(tmp_path: Path) -> None:
    (tmp_path / "text").write_text(ROSE)
    names = load_corpus(DataRecipe(source=str(tmp_path / "text"))).names
    assert names == (UNKNOWN_SYMBOL, *sorted(set(ROSE)))
