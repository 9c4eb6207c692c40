"""Our cells against the equations as they were published, written out in NumPy for one sequence and one gate at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.testing import assert_close

from model.cells.gated import Gated
from model.over_time import unroll
from tests.cells import random_inputs, random_state, small

STEPS, BATCH = 6, 3

Vector = NDArray[np.float64]
Step = Callable[["Weights", Vector, tuple[Vector, ...]], tuple[Vector, ...]]


class Weights:
    """The weights of a cell as papers write them: a matrix W_k over [h, x] and a bias b_k for each gate k."""

    def __init__(self, cell: Gated[Any, Any]) -> None:
        blocks = [cell.blocks(weight) for weight in (cell.weight_h, cell.weight_x, cell.bias)]
        h, x, self.b = ({gate: block.detach().numpy() for gate, block in part.items()} for part in blocks)
        self.W = {gate: np.hstack([h[gate], x[gate]]) for gate in h}
        self.own = {name: parameter.detach().numpy() for name, parameter in cell.named_parameters()}

    def __call__(self, gate: str, h: Vector, x: Vector) -> Vector:
        """W_k [h, x] + b_k."""
        return self.W[gate] @ np.concatenate([h, x]) + self.b[gate]


def sigma(z: Vector) -> Vector:
    return 1 / (1 + np.exp(-z))


def lstm(w: Weights, x: Vector, state: tuple[Vector, ...]) -> tuple[Vector, ...]:
    """The brief; Gers et al. 2000."""
    h, c = state
    f, i, o = sigma(w("forget", h, x)), sigma(w("input", h, x)), sigma(w("output", h, x))
    c = f * c + i * np.tanh(w("candidate", h, x))
    return o * np.tanh(c), c


def peephole(w: Weights, x: Vector, state: tuple[Vector, ...]) -> tuple[Vector, ...]:
    """Graves 2013, equations 7 to 11, with the peepholes as the diagonal matrices that they are there."""
    h, before = state
    W_ci, W_cf, W_co = (np.diag(w.own[f"peephole_{gate}"]) for gate in ("input", "forget", "output"))
    i = sigma(w("input", h, x) + W_ci @ before)
    f = sigma(w("forget", h, x) + W_cf @ before)
    c = f * before + i * np.tanh(w("candidate", h, x))
    o = sigma(w("output", h, x) + W_co @ c)
    return o * np.tanh(c), c


def coupled(w: Weights, x: Vector, state: tuple[Vector, ...]) -> tuple[Vector, ...]:
    """Greff et al. 2015: f = 1 - i, the input gate has the weights; ours, with all signs turned."""
    h, c = state
    i = sigma(-w.W["forget"] @ np.concatenate([h, x]) - w.b["forget"])
    c = (1 - i) * c + i * np.tanh(w("candidate", h, x))
    return sigma(w("output", h, x)) * np.tanh(c), c


def projected(w: Weights, x: Vector, state: tuple[Vector, ...]) -> tuple[Vector, ...]:
    """Sak et al. 2014: r_t is what is fed back, m_t stays inside."""
    r, c = state
    m, c = lstm(w, x, (r, c))
    return w.own["weight_projection"] @ m, c


def projected_and_clipped(w: Weights, x: Vector, state: tuple[Vector, ...]) -> tuple[Vector, ...]:
    """ELMo: clip the cell, project, clip the projection."""
    r, c = state
    f, i, o = sigma(w("forget", r, x)), sigma(w("input", r, x)), sigma(w("output", r, x))
    c = np.minimum(np.maximum(f * c + i * np.tanh(w("candidate", r, x)), -0.4), 0.4)
    r = w.own["weight_projection"] @ (o * np.tanh(c))
    return np.minimum(np.maximum(r, -0.2), 0.2), c


def highway_time(w: Weights, x: Vector, state: tuple[Vector, ...]) -> tuple[Vector, ...]:
    """The brief."""
    h, c = state
    T = sigma(w("transform", h, x))
    of_lstm, c = lstm(w, x, (h, c))
    return T * of_lstm + (1 - T) * h, c


def highway_depth(w: Weights, x: Vector, state: tuple[Vector, ...]) -> tuple[Vector, ...]:
    """He et al. 2017."""
    h, c = state
    r = sigma(w("transform", h, x))
    of_lstm, c = lstm(w, x, (h, c))
    return r * of_lstm + (1 - r) * (w.own["weight_carry"] @ x), c


def multiplicative_brief(w: Weights, x: Vector, state: tuple[Vector, ...]) -> tuple[Vector, ...]:
    """The brief: a term more in the forget gate."""
    h, c = state
    f = sigma(w("forget", h, x) + w.own["weight_product"] @ (h * x))
    c = f * c + sigma(w("input", h, x)) * np.tanh(w("candidate", h, x))
    return sigma(w("output", h, x)) * np.tanh(c), c


def multiplicative(w: Weights, x: Vector, state: tuple[Vector, ...]) -> tuple[Vector, ...]:
    """Krause et al. 2016: an LSTM that sees m where it would see h."""
    h, c = state
    m = (w.own["weight_mx"] @ x) * (w.own["weight_mh"] @ h)
    return lstm(w, x, (m, c))


def gru_before(w: Weights, x: Vector, state: tuple[Vector, ...]) -> tuple[Vector, ...]:
    """The brief and Chung et al. 2014, where z replaces: ours, with the signs of z turned."""
    (h,) = state
    z = sigma(-w.W["update"] @ np.concatenate([h, x]) - w.b["update"])
    r = sigma(w("reset", h, x))
    return ((1 - z) * h + z * np.tanh(w("candidate", r * h, x)),)


def gru_after(w: Weights, x: Vector, state: tuple[Vector, ...]) -> tuple[Vector, ...]:
    """The documentation of torch.nn.GRU, where z keeps."""
    (h,) = state
    z, r = sigma(w("update", h, x)), sigma(w("reset", h, x))
    W_hn, W_in = np.split(w.W["candidate"], [len(h)], axis=1)
    n = np.tanh(W_in @ x + w.b["candidate"] + r * (W_hn @ h + w.own["bias_h"]))
    return ((1 - z) * n + z * h,)


def rnn(w: Weights, x: Vector, state: tuple[Vector, ...]) -> tuple[Vector, ...]:
    return (np.tanh(w("candidate", state[0], x)),)


def rnn_relu(w: Weights, x: Vector, state: tuple[Vector, ...]) -> tuple[Vector, ...]:
    return (np.maximum(w("candidate", state[0], x), 0),)


PUBLISHED: dict[str, Step] = {
    "lstm": lstm,
    "peephole": peephole,
    "coupled": coupled,
    "projected": projected,
    "projected, clipped": projected_and_clipped,
    "highway-time": highway_time,
    "highway-depth": highway_depth,
    "multiplicative-brief": multiplicative_brief,
    "multiplicative": multiplicative,
    "multiplicative, wide": multiplicative,
    "gru": gru_after,
    "gru, reset before": gru_before,
    "rnn": rnn,
    "rnn, relu": rnn_relu,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_cell_is_its_published_equations(name: str) -> None:
    torch.manual_seed(0)
    cell = small(name)
    x_TBI, state = random_inputs(cell, STEPS, BATCH), random_state(cell, BATCH)
    output_TBH, last = unroll(cell, x_TBI, state)

    weights, published = Weights(cell), PUBLISHED[name]
    for row in range(BATCH):
        carried = tuple(segment[row].detach().numpy() for segment in state)
        for x, output in zip(x_TBI[:, row].detach().numpy(), output_TBH[:, row], strict=True):
            carried = published(weights, x, carried)
            assert_close(output, torch.from_numpy(carried[0]), rtol=1e-10, atol=1e-10)
        for found, expected in zip(last, carried, strict=True):
            assert_close(found[row], torch.from_numpy(expected), rtol=1e-10, atol=1e-10)


def test_the_clips_of_the_example_bite() -> None:
    torch.manual_seed(0)
    cell = small("projected, clipped")
    output, last = unroll(cell, random_inputs(cell, STEPS, BATCH), random_state(cell, BATCH))
    assert 0 < (output.abs() == 0.2).double().mean() < 1
    assert 0 < (last.cell.abs() == 0.4).double().mean() < 1
