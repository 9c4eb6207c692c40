"""Other ways to run an LSTM over time. They gain little or nothing: kept so that this can be measured again.

Axes: T time, B batch, I input, H hidden.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from model.cells.lstm import LSTM, LSTMState
from model.substitute import with_weights

Way = Callable[[Any, Tensor, Any], tuple[Tensor, Any]]


def hoisted(cell: LSTM, x_TBI: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
    """The loop, but the gradient of the recurrent matrix is one product at the end and not one in each step.

    The pre-activations are the sum of the projected inputs and the recurrent product, so that both have the same
    gradient: what reaches all projected inputs together is all that it takes.
    """
    seen: list[Tensor] = []
    outputs = []
    steps = with_weights(cell, {"weight_h": cell.weight_h.detach()})
    projected_TBP: Tensor = _AddsProduct.apply(  # type: ignore[no-untyped-call]
        cell.inputs(x_TBI), cell.weight_h, seen
    )
    for projected_t in projected_TBP:
        seen.append(state.hidden.detach())
        output, state = steps.update(steps.gates(projected_t, state.hidden, state), state)
        outputs.append(output)
    return torch.stack(outputs), state


class _AddsProduct(torch.autograd.Function):
    """The projected inputs as they are; its gradient has that of the product which each step adds to them."""

    @staticmethod
    def forward(ctx: Any, projected_TBP: Tensor, weight: Tensor, seen: list[Tensor]) -> Tensor:  # noqa: ARG004
        ctx.seen = seen
        return projected_TBP.view_as(projected_TBP)

    @staticmethod
    def backward(ctx: Any, gradient_TBP: Tensor) -> tuple[Tensor, Tensor, None]:
        return gradient_TBP, gradient_TBP.flatten(0, 1).T @ torch.cat(ctx.seen), None


def scripted(cell: LSTM, x_TBI: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
    """The loop as TorchScript, without Python."""
    output, hidden, last = _script()(cell.inputs(x_TBI), cell.weight_h, state.hidden, state.cell)
    return output, LSTMState(hidden, last)


def compiled(cell: LSTM, x_TBI: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
    """The loop over a step that torch.compile made one kernel of; needs a C++ compiler."""
    outputs = []
    hidden, last = state
    for projected_t in cell.inputs(x_TBI):
        hidden, last = _compiled_step()(projected_t, cell.weight_h, hidden, last)
        outputs.append(hidden)
    return torch.stack(outputs), LSTMState(hidden, last)


TRIED: Final[dict[str, Way]] = {"hoisted gradient": hoisted, "scripted": scripted, "compiled": compiled}


def _step(projected_t: Tensor, weight_h: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = (projected_t + functional.linear(hidden, weight_h)).chunk(4, -1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def _loop(
    projected_TBP: Tensor, weight_h: Tensor, hidden: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    outputs = []
    for projected_t in projected_TBP.unbind(0):
        hidden, cell = _step(projected_t, weight_h, hidden, cell)
        outputs.append(hidden)
    return torch.stack(outputs), hidden, cell


@cache
def _script() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is; that is one more reason
        script: Callable[..., tuple[Tensor, Tensor, Tensor]] = torch.jit.script(_loop)
        return script


@cache
def _compiled_step() -> Callable[..., tuple[Tensor, Tensor]]:
    return torch.compile(_step, dynamic=False)
