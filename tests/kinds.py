"""Every recurrence that advances in steps, with its options, as settings of a tiny checkpoint; and what it computes."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.cells import CELLS
from model.over_time import unroll
from model.tasks.characters import CharacterModel
from model.zoneout import zoneout
from tests.models import SYMBOLS

KINDS: dict[str, dict[str, Any]] = {
    **{kind: {"cell": kind} for kind in CELLS if kind != "projected"},
    "projected": {"cell": {"kind": "projected", "projection": 5}},
    "projected-clipped": {
        "cell": {"kind": "projected", "projection": 5, "cell_clip": 0.3, "projection_clip": 0.1}
    },
    "multiplicative-wide": {"cell": {"kind": "multiplicative", "intermediate": 11}},
    "gru-reset-before": {"cell": {"kind": "gru", "reset_after": False}},
    "rnn-relu": {"cell": {"kind": "rnn", "nonlinearity": "relu"}},
    "lstm-zoneout": {"cell": "lstm", "zoneout": {"hidden": 0.1, "cell": 0.7}},
    "gru-zoneout": {"cell": "gru", "zoneout": {"hidden": 0.5}},
    "lstm-observed": {"cell": "lstm"},
    "regularised": {
        "cell": "peephole",
        "share": True,
        "tie": True,
        "dropout": {"between": 0.5, "hidden": 0.5, "weight": 0.5, "output": 0.3, "locked": True},
    },
}
TOLERANCE = 1e-5
"""Rounding of float32, in sums of other orders, over some dozen steps."""


def by_the_equations(
    model: CharacterModel, tokens: NDArray[np.int64], row: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One sequence through the cells' own steps in double precision: logits and the state row after it."""
    exact = CharacterModel(len(SYMBOLS), model.sizes).double().eval()
    exact.load_state_dict(model.state_dict())
    x = exact.embedding(torch.from_numpy(tokens))[:, None]
    left, after = torch.from_numpy(row).double(), []
    with torch.no_grad():
        for cell in exact.stack.by_layer():
            start = cell.initial_state(1)
            parts, left = left[: sum(p.numel() for p in start)], left[sum(p.numel() for p in start) :]
            state = type(start)(*(p[None] for p in parts.split([p.shape[1] for p in start])))
            zone = zoneout(cell, model.sizes.zoneout, training=False)
            x, last = unroll(cell, x, state, zone=zone)
            after.append(torch.cat(list(last), dim=1)[0])
        return exact.head(x[:, 0]).numpy(), torch.cat(after).numpy()
