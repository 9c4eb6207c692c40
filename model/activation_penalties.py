"""What AWD-LSTM adds to the loss: large activations cost, and so do sudden ones.

Axes: T time, B batch, H hidden.

Source: Merity, McCann & Socher 2017.
"""

from torch import Tensor


def ar(y_TBH: Tensor, alpha: float) -> Tensor:
    """Activation regularisation, alpha * mean(y^2), a scalar in float32.

    Args:
        y_TBH: What the head reads: the outputs of the last layer, after dropout.
        alpha: The weight of the penalty.
    """
    return alpha * y_TBH.float().square().mean()


def tar(y_TBH: Tensor, beta: float) -> Tensor:
    """Temporal activation regularisation, beta * mean((y_t - y_{t-1})^2), a scalar in float32; zero for one step.

    Args:
        y_TBH: The outputs of the last layer, before dropout.
        beta: The weight of the penalty.
    """
    changes = y_TBH[1:].float() - y_TBH[:-1].float()
    return beta * changes.square().mean() if len(changes) else changes.sum()
