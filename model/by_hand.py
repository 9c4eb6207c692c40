"""The LSTM with peepholes and all its gradients by hand: NumPy, nothing differentiates for us.

To be read beside `model/cells/peephole.py`; nothing here is trained with. With peepholes of zero it is the plain LSTM.

Axes: T time, B batch, I input, H hidden. Blocks in the order i, f, g, o. A gate before it opens wears a hat:
i = sigmoid(i_hat). `d_a` is the derivative of the loss by a, along every path: total, not partial.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Weights(NamedTuple):
    """The parameters, or their gradients."""

    x: Array
    """`[4H, I]`"""
    h: Array
    """`[4H, H]`"""
    bias: Array
    """`[4H]`"""
    peepholes: Array
    """`[3, H]`: of i, f, o."""


class Step(NamedTuple):
    """What a step keeps for the way back. The gates are kept open: sigmoid'(i_hat) is i (1 - i)."""

    x: Array
    h_before: Array
    c_before: Array
    i: Array
    f: Array
    g: Array
    o: Array
    c: Array


class Gradients(NamedTuple):
    """Of the loss by everything that went in."""

    weights: Weights
    x_TBI: Array
    hidden: Array
    cell: Array


def forward(weights: Weights, x_TBI: Array, hidden: Array, cell: Array) -> tuple[Array, list[Step]]:
    """Run over time.

    Args:
        weights: The parameters.
        x_TBI: Inputs `[T, B, I]`.
        hidden: Where the sequences start, `[B, H]`.
        cell: The same of the cell, `[B, H]`.

    Returns:
        Outputs `[T, B, H]` and the steps; the last cell is that of the last step.
    """
    h, c = hidden, cell
    p_i, p_f, p_o = weights.peepholes
    outputs, steps = [], []
    for x in x_TBI:
        h_before, c_before = h, c
        z = x @ weights.x.T + h_before @ weights.h.T + weights.bias
        i_hat, f_hat, g_hat, o_hat = np.split(z, 4, axis=1)
        i = _sigmoid(i_hat + p_i * c_before)
        f = _sigmoid(f_hat + p_f * c_before)
        g = np.tanh(g_hat)
        c = f * c_before + i * g
        o = _sigmoid(o_hat + p_o * c)
        h = o * np.tanh(c)
        outputs.append(h)
        steps.append(Step(x, h_before, c_before, i, f, g, o, c))
    return np.stack(outputs), steps


def backward(
    weights: Weights, steps: list[Step], d_outputs_TBH: Array, d_hidden: Array, d_cell: Array
) -> Gradients:
    """The way back.

    Args:
        weights: Those of the way there.
        steps: What it kept.
        d_outputs_TBH: How the loss depends on each output directly, `[T, B, H]`.
        d_hidden: How what comes after depends on the last hidden state, `[B, H]`.
        d_cell: The same of the last cell.

    Source: Graves & Schmidhuber 2005, appendix, without the approximations of 1997; derived anew.
    """
    p_i, p_f, p_o = weights.peepholes
    d_weights = Weights(*(np.zeros_like(weight) for weight in weights))
    d_x_TBI = np.empty((len(steps), *steps[0].x.shape))
    d_h, d_c = d_hidden, d_cell
    for t, (x, h_before, c_before, i, f, g, o, c) in reversed(list(enumerate(steps))):
        # h_t is read twice: as the output, and by the gates of the next step.
        d_h = d_h + d_outputs_TBH[t]
        d_o_hat = d_h * np.tanh(c) * o * (1 - o)
        # c_t is read by h_t, by the output gate's peephole and, already in d_c, by the next step.
        d_c = d_c + d_h * o * (1 - np.tanh(c) ** 2) + p_o * d_o_hat
        d_i_hat = d_c * g * i * (1 - i)
        d_f_hat = d_c * c_before * f * (1 - f)
        d_g_hat = d_c * i * (1 - g**2)
        d_z = np.concatenate([d_i_hat, d_f_hat, d_g_hat, d_o_hat], axis=1)

        # The weights are the same at every step and in every row: their gradients are sums over both.
        d_weights.x[:] += d_z.T @ x
        d_weights.h[:] += d_z.T @ h_before
        d_weights.bias[:] += d_z.sum(axis=0)
        d_weights.peepholes[:] += np.stack([d_i_hat * c_before, d_f_hat * c_before, d_o_hat * c]).sum(axis=1)

        d_x_TBI[t] = d_z @ weights.x
        d_h = d_z @ weights.h
        d_c = d_c * f + p_i * d_i_hat + p_f * d_f_hat
    return Gradients(d_weights, d_x_TBI, d_h, d_c)


def _sigmoid(z: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * z))  # never overflows, unlike 1 / (1 + exp(-z))
