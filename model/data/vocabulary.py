"""The symbols of a text and their numbers: characters, or words.

Axes: N symbols of a text.
"""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

UNKNOWN_SYMBOL = "\N{REPLACEMENT CHARACTER}"
UNKNOWN: Final = 0
_CODE_POINTS = 0x110000


_WORD = re.compile(r"\w+|[^\w\s]|\n")


def words_of(text: str) -> list[str]:
    """The words, the marks and the ends of the lines of a text, in lower case; the spaces between them go."""
    return _WORD.findall(text.lower())


@dataclass(frozen=True)
class Words:
    """Word k is `symbols[k]`; word 0 stands for every word that is not among them."""

    symbols: tuple[str, ...]

    @classmethod
    def of_text(cls, text: str, limit: int) -> Self:
        """The most frequent words of a text, in the order of the alphabet; of equally frequent ones the first there.

        Args:
            text: The training text.
            limit: Largest number of words, the unknown one included.
        """
        counts = Counter(words_of(text))
        kept = sorted(counts, key=lambda word: (-counts[word], word))[: limit - 1]
        return cls((UNKNOWN_SYMBOL, *sorted(kept)))

    def encode(self, text: str) -> Tensor:
        """The text as tokens, int64 `[N]`."""
        tokens = {word: token for token, word in enumerate(self.symbols)}
        return torch.tensor([tokens.get(word, UNKNOWN) for word in words_of(text)], dtype=torch.int64)


@dataclass(frozen=True)
class Vocabulary:
    """Symbol k of a text is `symbols[k]`; symbol 0 stands for every character that is not among them."""

    symbols: tuple[str, ...]

    @classmethod
    def of_text(cls, text: str, limit: int) -> Self:
        """The characters of a text in the order of their code points.

        Args:
            text: The training text.
            limit: Largest number of symbols, the unknown one included. The most frequent characters stay;
                among equally frequent ones those with the smaller code point.
        """
        counts = np.bincount(_code_points(text), minlength=_CODE_POINTS)
        counts[ord(UNKNOWN_SYMBOL)] = 0
        by_frequency = np.argsort(-counts, kind="stable")[: limit - 1]
        kept = np.sort(by_frequency[counts[by_frequency] > 0])
        return cls((UNKNOWN_SYMBOL, *map(chr, kept.tolist())))

    def encode(self, text: str) -> Tensor:
        """The text as tokens, int64 `[N]`."""
        return torch.from_numpy(self._tokens[_code_points(text)])

    @cached_property
    def _tokens(self) -> NDArray[np.int64]:
        tokens = np.full(_CODE_POINTS, UNKNOWN, dtype=np.int64)
        tokens[[ord(symbol) for symbol in self.symbols]] = np.arange(len(self.symbols))
        return tokens


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
