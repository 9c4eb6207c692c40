"""A linear head whose matrix is the embedding's.

Axes: V vocabulary, E embedding.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from carousel.errors import CarouselError


class TieError(CarouselError):
    """Embedding and head cannot be one matrix."""


class TiedHead(nn.Module):
    """Logits from the products with every symbol's embedding, and a bias of its own.

    It draws the embedding anew, as a head's matrix would be drawn: embeddings of unit variance would give logits
    that are sqrt(E) times as large.

    Args:
        embedding: Owns the matrix `[V, E]`; what replaces its weight replaces the head's.
        width: What the head reads.

    Raises:
        TieError: the width is not E.

    Source: Press & Wolf 2017; Inan, Khosravi & Socher 2017.
    """

    def __init__(self, embedding: nn.Embedding, width: int) -> None:
        super().__init__()
        if width != embedding.embedding_dim:
            raise TieError(
                f"tie: the head reads {width} numbers, expected as many as an embedding has, "
                f"{embedding.embedding_dim}: set embedding = {width}, or project to {embedding.embedding_dim}"
            )
        nn.init.uniform_(embedding.weight, -(width**-0.5), width**-0.5)
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings))
        self._embedding = (embedding,)  # in a tuple it is no submodule of ours: its weight has one name

    @property
    def weight(self) -> Tensor:
        """The matrix `[V, E]`."""
        return self._embedding[0].weight

    def forward(self, y: Tensor) -> Tensor:
        """Logits `[..., V]` from `[..., E]`."""
        return functional.linear(y, self.weight, self.bias)
