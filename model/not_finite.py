"""Where a training broke: the first thing that is not finite, in the order in which it is computed."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


def first_not_finite(model: nn.Module, forward: Callable[[], object]) -> str:
    """Name the first weight, output or gradient that is not finite.

    Args:
        model: With the gradients of the update that failed.
        forward: Runs the forward pass of that update once more.
    """
    for name, weight in model.named_parameters():
        if not _finite(weight):
            return f"the weight {name}"
    for place in _broken_outputs(model, forward):
        return f"the output of {place}"
    for name, weight in reversed(list(model.named_parameters())):  # as the backward pass goes
        if weight.grad is not None and not _finite(weight.grad):
            return f"the gradient of {name}"
    return "the loss"


@torch.no_grad()
def _broken_outputs(model: nn.Module, forward: Callable[[], object]) -> list[str]:
    """The modules whose outputs are not finite, as they are computed: the inner ones before the outer ones."""
    broken = list[str]()

    def watch(name: str) -> Callable[[nn.Module, object, object], None]:
        def look(_: nn.Module, __: object, output: object) -> None:
            if not _finite(output):
                broken.append(name + _layer(output))

        return look

    handles = [
        module.register_forward_hook(watch(name or "the model")) for name, module in model.named_modules()
    ]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return broken


def _layer(output: object) -> str:
    """Which layer, of an output that comes with the state of every layer: the fused kernels are no modules."""
    match output:
        case (_, tuple(state)):
            return next((f", layer {k}" for k, layer in enumerate(state) if not _finite(layer)), "")
    return ""


def _finite(value: object) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in _tensors(value))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _tensors(part)
