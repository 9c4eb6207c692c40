"""Dropout that is drawn for each gate alone, "untied weights" in Gal & Ghahramani 2016.

Axes: T time, B batch, n what a weight reads, U units of a gate, G gates.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from model.dropout import mask
from model.substitute import Some, blocks, input_weights, recurrent_weights, with_weights


def untied(cell: Some, batch: int, *, input_share: float, hidden_share: float) -> Some:
    """The cell, each block of whose weights sees what it reads through a mask of its own; the given cell is left alone.

    A block is what belongs to one gate. A matrix that belongs to no gate (the two that make the intermediate of a
    multiplicative LSTM, say) is one block.

    Args:
        cell: Multiplies by `functional.linear`, as all of `CELLS` do.
        batch: B.
        input_share: Of what the weights of the input read.
        hidden_share: Of what the recurrent weights read.
    """
    weights = {}
    for read, share in ((input_weights(cell), input_share), (recurrent_weights(cell), hidden_share)):
        for name, weight in read.items():
            if share:
                masks_GBn = mask(share, weight, blocks(cell, name), batch, weight.shape[1])
                weights[name] = MaskedWeight(weight, masks_GBn)
    return with_weights(cell, weights)


class MaskedWeight:
    """Stands in for a weight `[G U, n]` in `functional.linear`.

    Args:
        weight: G blocks, one below the other.
        masks_GBn: What each of them sees of `x [..., B, n]`: everything is multiplied by it.
    """

    def __init__(self, weight: Tensor, masks_GBn: Tensor) -> None:
        self._weight_GUn = weight.view(len(masks_GBn), -1, weight.shape[1])
        self._masks_GBn = masks_GBn

    def split(self, rows: Sequence[int]) -> list[Self]:
        """As a tensor's, between two blocks."""
        units = self._weight_GUn.shape[1]
        ends = list(accumulate(count // units for count in rows))
        pieces = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        return [type(self)(self._weight_GUn[one].flatten(0, 1), self._masks_GBn[one]) for one in pieces]

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """W (m * x) + b, block by block: `[..., B, n]` to `[..., B, G U]`."""
        gates, *rest = self._masks_GBn.shape
        masks = self._masks_GBn.view(gates, *(x.dim() - 2) * (1,), *rest)
        product = torch.einsum("g...n,gun->...gu", x * masks, self._weight_GUn).flatten(-2)
        return product if bias is None else product + bias

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """What torch calls instead of a function that one of us is given to."""
        if function is not functional.linear:
            return NotImplemented
        x, weight, *bias = args
        return weight.product(x, *bias)
