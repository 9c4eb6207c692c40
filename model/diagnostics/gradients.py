"""How large the gradient is, a gate and a matrix at a time."""

import torch
from torch import Tensor

from model.diagnostics.watch import Layer

SHARED = ("weight_x", "weight_h", "bias")
"""The parameters that are made of a block for each gate."""


def gradient_norms(layers: list[Layer], loss: Tensor) -> list[dict[str, dict[str, float]]]:
    """Euclidean norms of the gradient of a loss.

    Args:
        layers: Of the run that gave the loss.
        loss: A scalar.

    Returns:
        Norms by parameter and then by gate, a layer each; a parameter of no gate stands under its own name with the
        one key `all`. A cell that several layers share has the sum over them, and stands at each.
    """
    found = []
    for layer in layers:
        parameters = dict(layer.cell.named_parameters())
        gradients = torch.autograd.grad(
            loss, list(parameters.values()), retain_graph=True, materialize_grads=True
        )
        norms = {}
        for name, gradient in zip(parameters, gradients, strict=True):
            blocks = layer.cell.blocks(gradient) if name in SHARED else {"all": gradient}
            norms[name] = {gate: float(block.norm()) for gate, block in blocks.items()}
        found.append(norms)
    return found
