"""The graphs of an encoder-decoder that was trained to write one sequence after reading another."""

from export.encoder_decoder import Pair, Vocabulary
from export.step import origin_of
from model.checkpoint import Checkpoint
from model.data.pairs import split_names
from model.tasks.translate import Translator

MAX_SOURCE = 64
"""Longest sequence that can be read, and more where training had longer ones."""


def pair_of(checkpoint: Checkpoint, model: Translator) -> Pair:
    """Model and vocabularies of a checkpoint, as `export.door.write_pair` takes them.

    Args:
        checkpoint: Where the model comes from.
        model: Its model.
    """
    source, target = map(Vocabulary, split_names(checkpoint.vocabulary))
    return Pair(model.network, source, target, origin_of(checkpoint), MAX_SOURCE)
