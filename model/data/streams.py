"""Streams: a text read by many readers side by side.

Axes: T time, B batch (streams), N characters of the text.
"""

import torch
from torch import Tensor

from model.data.placed import DataError


class Streams:
    """B readers at equal distances on a text that is closed to a ring, so that no stream ever ends.

    The state of a stream can therefore be carried from every chunk to the next; the only false neighbours are
    the end of the text and its beginning.

    Args:
        tokens_N: int64 `[N]`.
        streams: B.
        steps: T, characters in a chunk.
        stride: Characters from the beginning of a chunk to that of the next; None: T, so that chunks touch.

    Raises:
        DataError: N is less than B x T.
    """

    def __init__(self, tokens_N: Tensor, streams: int, steps: int, stride: int | None = None) -> None:
        if len(tokens_N) < streams * steps:
            needed = f"{streams} streams of {steps} steps need {streams * steps}"
            raise DataError(f"the training text has {len(tokens_N)} characters, {needed}")
        self._tokens_N = tokens_N
        self._starts_B = torch.arange(streams) * len(tokens_N) // streams
        self._steps, self._stride = steps, stride or steps

    def chunk(self, number: int) -> tuple[Tensor, Tensor]:
        """Chunk `number` of every stream: inputs `[B, T]` and the characters that follow them `[B, T]`."""
        window = number * self._stride + torch.arange(self._steps + 1)
        places = (self._starts_B[:, None] + window) % len(self._tokens_N)
        tokens = self._tokens_N[places]
        return tokens[:, :-1], tokens[:, 1:]
