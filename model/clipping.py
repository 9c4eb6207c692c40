"""Bounds on a gradient: after it is complete, before the weights move."""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_

from model.training_recipe import ClipBy


def clip(parameters: Iterable[nn.Parameter], limit: float, by: ClipBy, norm: Tensor) -> None:
    """Bound the gradients of some parameters, in place.

    Args:
        parameters: Those that the update changes.
        limit: The bound.
        by: What is bounded. `norm`: the Euclidean norm of all gradients as one vector, which keeps its direction;
            `tensor`: that of each parameter's gradient; `value`: the magnitude of every element.
        norm: Of all gradients together, a scalar; finite.

    Source: `norm`, Pascanu, Mikolov & Bengio 2013, algorithm 1 (here, as in PyTorch, over the norm + 1e-6); `value`,
    Mikolov 2012 (thesis), which many call clipping per parameter.
    """
    parameters = list(parameters)
    match by:
        case "norm":
            clip_grads_with_norm_(parameters, limit, norm)
        case "tensor":
            for parameter in parameters:
                clip_grad_norm_(parameter, limit)
        case "value":
            clip_grad_value_(parameters, limit)
