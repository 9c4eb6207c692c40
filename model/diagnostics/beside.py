"""The network without gates that a model is compared with, where nobody gives a better one.

Axes: T time, B batch, I input, H hidden.
"""

import torch
from torch import Tensor

from model.diagnostics.flow import Flow, gradient_flow
from model.diagnostics.watch import watched
from model.model_recipe import RNNCell
from model.stack import Stack


def untrained_rnn(like: Stack, x_TBI: Tensor) -> list[Flow]:
    """The gradient flow of a new RNN on the same inputs, with as many layers that hand on as many numbers.

    Its recurrent matrix is orthogonal: before any learning, a better start than most. The loss is a random weighing of
    its last output.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stack = Stack(x_TBI.shape[-1], like.width, like.layers, cell=RNNCell(kind="rnn")).double()
        weigh_H = torch.randn(like.width, dtype=torch.float64)
    with watched(stack) as layers:
        y_TBH, _ = stack(x_TBI, stack.initial_state(x_TBI.shape[1]))
    loss = (y_TBH[-1] @ weigh_H).sum()
    return [gradient_flow(layer, len(x_TBI) - 1, loss) for layer in layers]
