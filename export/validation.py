"""A model's own validation metric, taken on its graph.

Axes: T time, B batch, N characters.
"""

import numpy as np
from numpy.typing import NDArray

from carousel.contract import Contract
from export.errors import ExportError
from export.report import Check
from export.runtime import OnnxStep
from model.checkpoint import Checkpoint
from model.data.corpus import load_corpus
from model.recipe import Recipe, TextRecipe

STREAMS, STEPS, CHUNKS = 32, 64, 16
"""As much of the held-out text as is read, side by side: 32768 characters."""
ALLOWED_BITS = 0.01
"""Bits per character that rounding may cost: as much as another seed easily gives."""


def held_out(checkpoint: Checkpoint) -> NDArray[np.int64]:
    """The held-out text of a checkpoint's recipe, tokens `[N]`.

    Raises:
        ExportError: it is no text, or not the one that the model was trained with.
        CarouselError: it cannot be read.
    """
    recipe = Recipe.from_document(checkpoint.recipe)
    if not isinstance(recipe, TextRecipe):
        raise ExportError(f"task {recipe.task}: expected --precision fp32, less is measured on texts only")
    corpus = load_corpus(recipe.data)
    if corpus.sha256 != checkpoint.data_sha256:
        raise ExportError(
            f"expected the text that the model was trained with, sha256 {checkpoint.data_sha256}: "
            f"the recipe's is {corpus.sha256} now"
        )
    return corpus.validation.numpy()[: STREAMS * STEPS * CHUNKS + 1]


def metric_check(
    exact: OnnxStep, rounded: OnnxStep, contract: Contract, tokens_N: NDArray[np.int64]
) -> Check:
    """Compare two graphs of the same model by their bits per character.

    Args:
        exact: The one in float32.
        rounded: The other.
        contract: Of either.
        tokens_N: The text.
    """
    before, after = (bits_per_character(run, contract, tokens_N) for run in (exact, rounded))
    detail = f"float32 {before:.4f}, this one {after:.4f}, on {len(tokens_N) - 1} characters"
    return Check("bits per character more than in float32", after - before, ALLOWED_BITS, detail)


def bits_per_character(run: OnnxStep, contract: Contract, tokens_N: NDArray[np.int64]) -> float:
    """Mean over a text that is read in streams side by side, the state carried."""
    streams = min(STREAMS, (len(tokens_N) - 1))
    length = (len(tokens_N) - 1) // streams
    inputs_BL = tokens_N[: streams * length].reshape(streams, length)
    targets_BL = tokens_N[1 : streams * length + 1].reshape(streams, length)
    rows_BS = np.zeros((streams, contract.state_size), np.float32)
    if contract.initial is not None:
        rows_BS[:] = contract.initial
    nats = 0.0
    for start in range(0, length, STEPS):
        tokens_BT = inputs_BL[:, start : start + STEPS]
        lengths_B = np.full(streams, tokens_BT.shape[1], np.int32)
        logits_BTV, rows_BS = run(tokens_BT, lengths_B, rows_BS)
        logits_BTV = logits_BTV.astype(np.float64)
        wanted_BT1 = targets_BL[:, start : start + STEPS, None]
        largest_BT1 = logits_BTV.max(axis=-1, keepdims=True)
        norm_BT1 = largest_BT1 + np.log(np.exp(logits_BTV - largest_BT1).sum(axis=-1, keepdims=True))
        nats += float((norm_BT1 - np.take_along_axis(logits_BTV, wanted_BT1, axis=-1)).sum())
    return nats / (streams * length) / float(np.log(2))
