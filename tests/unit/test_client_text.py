import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carousel.contract import Port
from carousel.text import TextError, decode, encode, sample

LETTERS = Port(name="token", dtype="int64", vocabulary=("?", "a", "b", "\n"), unknown=0)
STRICT = Port(name="token", dtype="int32", vocabulary=("a", "b"))


@given(st.text(alphabet="ab\n"))
def test_text_comes_back_from_its_tokens(text: str) -> None:
    assert decode(encode(text, LETTERS), LETTERS) == text


def test_tokens_have_the_dtype_of_the_port() -> None:
    assert encode("ab", STRICT).dtype == np.int32
    assert encode("", LETTERS).shape == (0,)


def test_a_stranger_becomes_the_unknown_token() -> None:
    assert encode("aXb", LETTERS).tolist() == [1, 0, 2]


def test_a_stranger_without_an_unknown_token_is_named() -> None:
    with pytest.raises(TextError, match="token: the vocabulary of 2 symbols has no 'é'"):
        encode("aéb", STRICT)


@pytest.mark.parametrize("token", [-1, 2])
def test_a_token_outside_the_vocabulary_is_named(token: int) -> None:
    with pytest.raises(TextError, match=f"expected a token from 0 to 1, came {token}"):
        decode([token], STRICT)


def test_a_port_without_a_vocabulary_has_no_text() -> None:
    with pytest.raises(TextError, match="with a vocabulary"):
        encode("a", Port(name="x", dtype="int64"))


def test_temperature_0_takes_the_likeliest() -> None:
    rng = np.random.default_rng(0)
    assert {sample(np.array([1, 3, 2], np.float32), 0, rng) for _ in range(20)} == {1}


def test_a_draw_follows_the_softmax_at_its_temperature() -> None:
    logits = np.log(np.array([0.2, 0.3, 0.5], np.float32))
    rng = np.random.default_rng(0)
    for temperature, expected in ((1.0, [0.2, 0.3, 0.5]), (0.5, [0.04, 0.09, 0.25])):
        drawn = np.bincount([sample(logits, temperature, rng) for _ in range(20_000)], minlength=3)
        shares = np.array(expected) / sum(expected)
        np.testing.assert_allclose(drawn / 20_000, shares, atol=0.015)


@pytest.mark.parametrize("logits", [[1e30, 0, -1e30], [-1e38, -3e38, -np.inf]])
@pytest.mark.parametrize("temperature", [1e-300, 1e-3, 1.0, 1e6])
def test_extreme_logits_and_temperatures_draw_the_likeliest(logits: list[float], temperature: float) -> None:
    rng = np.random.default_rng(0)
    assert sample(np.array(logits, np.float32), temperature, rng) == 0
