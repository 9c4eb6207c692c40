"""The symbols of a text and their numbers."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from model.data.vocabulary import UNKNOWN_SYMBOL, Vocabulary

texts = st.text(st.characters(codec="utf-8", exclude_characters=UNKNOWN_SYMBOL), min_size=1)


@given(texts)
def test_a_text_can_be_read_back_from_its_tokens(text: str) -> None:
    vocabulary = Vocabulary.of_text(text, limit=1000)
    assert "".join(vocabulary.symbols[token] for token in vocabulary.encode(text)) == text


@given(texts, st.integers(2, 5))
def test_a_vocabulary_is_sorted_bounded_and_begins_with_the_unknown_symbol(text: str, limit: int) -> None:
    unknown, *symbols = Vocabulary.of_text(text, limit).symbols
    assert unknown == UNKNOWN_SYMBOL
    assert symbols == sorted(set(symbols))
    assert len(symbols) == min(limit - 1, len(set(text)))


def test_the_most_frequent_characters_stay() -> None:
    assert Vocabulary.of_text("zzzaaabbc", limit=4).symbols == (UNKNOWN_SYMBOL, "a", "b", "z")


def test_equally_frequent_characters_are_taken_in_the_order_of_their_code_points() -> None:
    assert Vocabulary.of_text("dcba", limit=3).symbols == (UNKNOWN_SYMBOL, "a", "b")


def test_every_other_character_is_the_unknown_token() -> None:
    tokens = Vocabulary.of_text("aab", limit=100).encode("a€b\U0001f600\0")
    assert tokens.tolist() == [1, 0, 2, 0, 0]
    assert tokens.dtype == torch.int64


def test_the_unknown_symbol_in_a_text_is_the_unknown_token() -> None:
    vocabulary = Vocabulary.of_text(f"a{UNKNOWN_SYMBOL}b", limit=100)
    assert vocabulary.symbols == (UNKNOWN_SYMBOL, "a", "b")
    assert vocabulary.encode(UNKNOWN_SYMBOL).tolist() == [0]
