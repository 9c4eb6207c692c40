"""A corpus: texts made ready for training.

Axes: N characters of a text.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from model.data.placed import DataError
from model.data.sources import read_texts
from model.data.vocabulary import Vocabulary, Words
from model.data_recipe import DataRecipe

BY_TEXT_FROM = 20
"""From this many texts on, whole texts are held out."""


@dataclass(frozen=True)
class Corpus:
    """Tokens to train on, tokens held out, and what they mean."""

    vocabulary: Vocabulary | Words
    training: Tensor
    """int64 `[N]`"""
    validation: Tensor
    """int64 `[N]`, N at least 2"""
    sha256: str
    """Of the text that was used; for one whole file, the file's own."""

    @property
    def names(self) -> tuple[str, ...]:
        """The symbols."""
        return self.vocabulary.symbols


def load_corpus(data: DataRecipe, kind: type[Vocabulary] | type[Words] = Vocabulary) -> Corpus:
    """Read, split and encode the text of a recipe.

    Args:
        data: Which text.
        kind: What its symbols are.

    Raises:
        DataError: there is no such text, or too little of it.
    """
    texts = _at_most(data.characters, read_texts(data.source))
    training, validation = split(texts)
    if len(validation) < 2:
        raise DataError(f"{data.source}: {sum(map(len, texts))} characters are too few to hold a tenth out")
    vocabulary = kind.of_text(training, data.vocabulary)
    digest = hashlib.sha256("".join(texts).encode()).hexdigest()
    return Corpus(vocabulary, vocabulary.encode(training), vocabulary.encode(validation), digest)


def split(texts: list[str]) -> tuple[str, str]:
    """Training text and held-out text.

    Of 20 texts or more every twentieth is held out, the tenth first: the held-out part is then spread over
    all of them, and no text is in both. Fewer are joined, and the last tenth is held out.
    """
    if len(texts) >= BY_TEXT_FROM:
        held_out = texts[BY_TEXT_FROM // 2 - 1 :: BY_TEXT_FROM]
        rest = [text for k, text in enumerate(texts) if k % BY_TEXT_FROM != BY_TEXT_FROM // 2 - 1]
        return "".join(rest), "".join(held_out)
    whole = "".join(texts)
    border = len(whole) * 9 // 10
    return whole[:border], whole[border:]


def _at_most(characters: int | None, texts: Iterable[str]) -> list[str]:
    if characters is None:
        return list(texts)
    kept, left = [], characters
    for text in texts:
        if left > 0:
            kept.append(text[:left])
            left -= len(text)
    return kept
