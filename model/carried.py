"""The state that a training carries from update to update: a tuple of layers, each a named tuple of `[B, n]` tensors.

Axes: B batch (streams).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from model.checkpoint import part

Carried = tuple[Any, ...]
"""The type of a layer is its cell's."""


def detached(state: Carried) -> Carried:
    """The same numbers, and no gradient beyond them."""
    return _each(Tensor.detach, state)


def split(state: Carried, parts: int) -> list[Carried]:
    """The state of each of some equal parts of the streams."""
    return [_each(lambda value, k=k: value.chunk(parts)[k], state) for k in range(parts)]


def joined(states: Sequence[Carried]) -> Carried:
    """The state of all streams from that of their parts."""
    return _each(lambda *values: torch.cat(values), *states)


def named(state: Carried) -> dict[str, Tensor]:
    """The tensors by name: `layer0.hidden` and so on."""
    return {
        f"layer{number}.{segment}": value
        for number, layer in enumerate(state)
        for segment, value in layer._asdict().items()
    }


def restored(tensors: dict[str, Tensor], like: Carried) -> Carried:
    """The state that `named` took apart.

    Args:
        tensors: By name.
        like: A state of the same layers.
    """
    return tuple(type(layer)(**part(tensors, f"layer{number}.")) for number, layer in enumerate(like))


def _each(change: Callable[..., Tensor], *states: Carried) -> Carried:
    return tuple(
        type(layers[0])(*(change(*values) for values in zip(*layers, strict=True)))
        for layers in zip(*states, strict=True)
    )
