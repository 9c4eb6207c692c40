"""How far back a loss reaches: dL/dC[t-k] against k.

Axes: T time, B batch, U units, K steps back.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from model.diagnostics.watch import Layer


class Flow(NamedTuple):
    """Norms of the gradient k = 0 to t steps before the loss of step t, as shares of the norm at k = 0, `[K, B]` each.

    A sequence whose loss does not depend on the layer has NaN.
    """

    direct_KB: Tensor
    """With the gates held: dL/dC[t] times the product of what was kept, f[t-k+1] to f[t]; the brief's formula."""
    total_KB: Tensor
    """Along every path: the gates also depend on the state before them."""


def gradient_flow(layer: Layer, step: int, loss: Tensor) -> Flow:
    """Follow the gradient of a loss back through the memory of one layer.

    In a network without gates nothing is kept, and what is direct is zero from k = 1 on.

    Args:
        layer: Of the run that gave the loss.
        step: t, counted from 0: the loss is that of this step, over all sequences.
        loss: A scalar.

    Source: Hochreiter & Schmidhuber 1997 for the direct path; the total derivative is autograd's.
    """
    memories = layer.memories[1 : step + 2]
    gradients = torch.autograd.grad(loss, memories, retain_graph=True, materialize_grads=True)
    back_KBU = torch.stack(gradients).flip(0)
    kept_KBU = layer.kept_TBU[: step + 1].flip(0)
    return Flow(_shares(direct(back_KBU[0], kept_KBU)), _shares(back_KBU))


def direct(last_BU: Tensor, kept_KBU: Tensor) -> Tensor:
    """What gates that are held hand back, `[K, B, U]`: k = 0 is what came, k = 1 has passed the gate of the last step.

    Args:
        last_BU: The gradient of the memory after the last step.
        kept_KBU: What every step kept, the last step first.
    """
    first = torch.ones_like(kept_KBU[:1])
    return last_BU * torch.cat([first, kept_KBU[:-1]]).cumprod(dim=0)


def _shares(gradient_KBU: Tensor) -> Tensor:
    norms_KB = gradient_KBU.square().sum(dim=-1).sqrt()
    return norms_KB / norms_KB[0]
