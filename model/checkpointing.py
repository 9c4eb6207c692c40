"""Gradient checkpointing over time: memory for about 2 sqrt(T) steps instead of T, at the price of a second forward pass.

Axes: T time, B batch, I input, H hidden.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Run = Callable[[Tensor, Any], tuple[Tensor, Any]]


def in_segments(run: Run, x_TBI: Tensor, state: Any, *, keep: bool = False) -> tuple[Tensor, Any]:
    """Run ceil(sqrt(T)) steps at a time and keep no more of each segment than where it starts.

    The backward pass computes a segment's activations again, with the random numbers of the first time: outputs and
    gradients are those of the same segments with `keep`, bit for bit.

    Args:
        run: From inputs and a state to outputs and the state after them.
        x_TBI: Inputs `[T, B, I]`, T at least 1.
        state: Where the sequences start; a tuple of tensors.
        keep: Keep everything, as if there were no checkpoints.

    Returns:
        Outputs `[T, B, H]` and the state after the last step.

    Source: Chen et al. 2016.
    """
    outputs = []
    for segment in torch.split(x_TBI, math.ceil(math.sqrt(len(x_TBI)))):
        output, state = run(segment, state) if keep else _recomputed(run, segment, state)
        outputs.append(output)
    return torch.cat(outputs), state


def _recomputed(run: Run, segment: Tensor, state: Any) -> tuple[Tensor, Any]:
    output, after = checkpoint(run, segment, state, use_reentrant=False, preserve_rng_state=True)
    return output, after
