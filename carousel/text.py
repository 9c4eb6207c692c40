"""Text to tokens and back, and drawing the next token. Axes: T tokens, V symbols of the vocabulary."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.contract import Port
from carousel.errors import CarouselError
from carousel.wire.frames import NUMPY


class TextError(CarouselError):
    """A symbol or a token that the vocabulary does not have."""


def encode(text: str, port: Port) -> NDArray[Any]:
    """Tokens `[T]` of the port's dtype, one for each character of the text.

    Args:
        text: A character outside the vocabulary becomes the port's `unknown` token.
        port: An integer port with a vocabulary.

    Raises:
        TextError: the port has no vocabulary, or has no token for a character.
    """
    tokens = {symbol: token for token, symbol in enumerate(_vocabulary(port))}
    strangers = [symbol for symbol in text if symbol not in tokens]
    if strangers and port.unknown is None:
        raise TextError(f"{port.name}: the vocabulary of {len(tokens)} symbols has no {strangers[0]!r}")
    return np.array([tokens.get(symbol, port.unknown) for symbol in text], NUMPY[port.dtype])


def decode(tokens: Iterable[int], port: Port) -> str:
    """The symbols of some tokens, joined.

    Raises:
        TextError: the port has no vocabulary, or a token is outside it.
    """
    vocabulary = _vocabulary(port)
    symbols = []
    for token in tokens:
        if not 0 <= token < len(vocabulary):
            raise TextError(f"{port.name}: expected a token from 0 to {len(vocabulary) - 1}, came {token}")
        symbols.append(vocabulary[token])
    return "".join(symbols)


def sample(logits: NDArray[np.floating[Any]], temperature: float, rng: np.random.Generator) -> int:
    """Draw a token.

    Args:
        logits: `[V]`, unnormalised log probabilities.
        temperature: 1 draws as the model believes, less favours the likely, 0 takes the likeliest.
        rng: Where chance comes from.

    Returns:
        A token, 0 to V - 1.
    """
    if temperature == 0:
        return int(np.argmax(logits))
    # From the maximum down, so that exp cannot overflow; where the division does, the chance is 0 all the same.
    with np.errstate(over="ignore"):
        chances = np.exp((logits.astype(np.float64) - np.max(logits)) / temperature)
    return int(rng.choice(len(chances), p=chances / chances.sum()))


def _vocabulary(port: Port) -> tuple[str, ...]:
    if port.vocabulary is None:
        raise TextError(f"{port.name}: expected a port with a vocabulary")
    return port.vocabulary
