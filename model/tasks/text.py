"""Language models of characters and words: streams of a text, and how much of it surprises the model."""

import math

from torch import Tensor

from model.data.corpus import Corpus
from model.data.streams import Streams
from model.recipe import Recipe
from model.tasks.characters import CharacterModel, bits, cross_entropy, evaluate
from model.tasks.task import Batch

_EVALUATION_STREAMS = 64
_EVALUATION_TOKENS = 4096
"""Side by side, to be fast, but each stream long enough that its cold start does not count; the figure that is kept
at the end comes from a single stream."""


class Text:
    """Predict the next character, or the next word, of a text that goes on and on.

    Args:
        recipe: Of the task `characters` or `words`.
        corpus: The text.

    Raises:
        DataError: the text is too short for the streams.
    """

    carries = True

    def __init__(self, recipe: Recipe, corpus: Corpus) -> None:
        self._recipe, self._corpus = recipe, corpus
        plan = recipe.training
        self._streams = Streams(corpus.training, plan.streams, plan.steps, plan.moves_by)

    @property
    def summary(self) -> str:
        """How much text there is."""
        learnt, held_out = len(self._corpus.training), len(self._corpus.validation)
        return f"{learnt} {self._recipe.task} to learn, {held_out} held out"

    def new_model(self) -> CharacterModel:
        """A model with fresh weights."""
        return CharacterModel(len(self._corpus.names), self._recipe.model)

    def batch(self, number: int) -> Batch:
        """The next chunk of every stream."""
        inputs_BT, targets_BT = self._streams.chunk(number)
        return Batch((inputs_BT,), targets_BT)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Nats a token, of those that the update learns from."""
        learnt = self._recipe.training.moves_by
        return cross_entropy(outputs[:, -learnt:], targets[:, -learnt:])

    def evaluate(self, model: CharacterModel, *, exactly: bool = False) -> float:
        """Nats a held-out token; `exactly` as one unbroken stream."""
        tokens_N = self._corpus.validation
        streams = 1 if exactly else min(_EVALUATION_STREAMS, len(tokens_N) // _EVALUATION_TOKENS + 1)
        return evaluate(model, tokens_N, streams)

    def figures(self, loss: float) -> dict[str, float]:
        """Nats, and bits of characters or the perplexity of words."""
        if self._recipe.task == "words":
            return {"validation_nats": loss, "perplexity": math.exp(loss)}
        return {"validation_nats": loss, "bits_per_character": bits(loss)}

    def test(self, model: CharacterModel) -> dict[str, float]:
        """The same as held out: a text has no third part."""
        return self.figures(self.evaluate(model, exactly=True))

    def said(self, figures: dict[str, float]) -> str:
        """Bits or perplexity."""
        if self._recipe.task == "words":
            return f"perplexity {figures['perplexity']:.1f} of held-out words"
        return f"{figures['bits_per_character']:.4f} bits per held-out character"
