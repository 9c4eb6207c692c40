"""A corpus: what is held out, what is cut off, and which text it was."""

import hashlib
from pathlib import Path

import pytest

from model.data.corpus import load_corpus, split
from model.data.placed import DataError
from model.recipe import DataRecipe


def test_of_few_texts_the_last_tenth_is_held_out() -> None:
    assert split(["0123", "456789"]) == ("012345678", "9")


def test_of_many_texts_every_twentieth_is_held_out_as_a_whole() -> None:
    training, validation = split([f"{k:02}." for k in range(45)])
    assert validation == "09.29."
    assert training == "".join(f"{k:02}." for k in range(45) if k not in (9, 29))


def test_symbols_come_from_the_training_part_alone(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("ab" * 45 + "abababab?!")
    corpus = load_corpus(DataRecipe(source=str(tmp_path / "text")))
    assert corpus.vocabulary.symbols[1:] == ("a", "b")
    assert corpus.validation.tolist() == [1, 2] * 4 + [0, 0]
    assert corpus.training.tolist() == [1, 2] * 45


def test_the_digest_of_a_whole_file_is_the_file_s_own(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes("à la\r\n".encode() * 20)
    corpus = load_corpus(DataRecipe(source=str(tmp_path / "text")))
    assert corpus.sha256 == hashlib.sha256((tmp_path / "text").read_bytes()).hexdigest()


def test_no_more_characters_are_used_than_the_recipe_says(tmp_path: Path) -> None:
    for k in range(3):
        (tmp_path / str(k)).write_text(str(k) * 20)
    corpus = load_corpus(DataRecipe(source=str(tmp_path), characters=50))
    assert len(corpus.training) + len(corpus.validation) == 50
    assert corpus.sha256 == hashlib.sha256(b"0" * 20 + b"1" * 20 + b"2" * 10).hexdigest()


def test_a_text_too_short_to_hold_anything_out_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("short")
    with pytest.raises(DataError, match="5 characters are too few"):
        load_corpus(DataRecipe(source=str(tmp_path / "text")))
