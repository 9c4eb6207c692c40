"""What the gates of a step do, as numbers for each session.

Axes: T time, B batch, n units, K statistics.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.draft import Draft
from export.places import add_places

OPENING = ("input", "forget", "output", "transform", "reset", "update")
"""Names of gates that open between 0 and 1, in any cell."""
OBSERVED = "observed"
"""Name of the output."""
_SATURATED = 0.4
"""Distance from 0.5. Source: Karpathy, Johnson & Fei-Fei 2015, who call a gate below 0.1 or above 0.9 saturated."""


def statistics(gates: Any, after: Any) -> dict[str, Tensor]:
    """Look at one step.

    Args:
        gates: A cell's gates, a named tuple of `[B, n]`; fields named as in `OPENING` are looked at.
        after: The state after the step, a named tuple of `[B, n]`.

    Returns:
        `[B]` each: the mean of every gate and the share of its units that are saturated, and the Euclidean norm of
        every part of the state.
    """
    found = {}
    for name in OPENING:
        if name in gates._fields:
            gate = getattr(gates, name)
            found[f"{name}.mean"] = gate.mean(dim=-1)
            found[f"{name}.saturated"] = ((gate - 0.5).abs() > _SATURATED).to(gate.dtype).mean(dim=-1)
    for name, part in after._asdict().items():
        found[f"{name}.norm"] = part.square().sum(dim=-1).sqrt()
    return found


def side_by_side(found: dict[str, Tensor]) -> Tensor:
    """The same as `[B, K]`."""
    return torch.cat([one.unsqueeze(1) for one in found.values()], dim=1)


def add_means(draft: Draft, observed_BTK: Sequence[str], lengths64_B: str, output: str) -> None:
    """Add the means over each row's steps.

    Args:
        draft: Where the nodes go.
        observed_BTK: Names of the statistics of every step, a layer each.
        lengths64_B: Name of the steps of each row, int64.
        output: Name that `[B, all K]`, float32, gets.
    """
    last, time = (
        draft.weight(f"observed.{name}", np.array([axis])) for name, axis in (("last", -1), ("time", 1))
    )
    draft.node("Concat", list(observed_BTK), ["observed.steps_BTK"], axis=2)
    t_T = add_places(draft, "observed.steps_BTK", 1, 3, "observed.t_T")
    draft.node("Unsqueeze", [lengths64_B, last], ["observed.lengths_B1"])
    draft.node("Less", [t_T, "observed.lengths_B1"], ["observed.real_BT"])
    draft.node("Unsqueeze", ["observed.real_BT", last], ["observed.real_BT1"])
    # Chosen, not multiplied: beyond a row's end there may be anything.
    nothing = draft.weight("observed.nothing", np.float32(0))
    draft.node("Where", ["observed.real_BT1", "observed.steps_BTK", nothing], ["observed.own_BTK"])
    draft.node("ReduceSum", ["observed.own_BTK", time], ["observed.sums_BK"], keepdims=0)
    draft.node("Cast", ["observed.lengths_B1"], ["observed.count_B1"], to=draft.real)
    draft.float32_node("Div", ["observed.sums_BK", "observed.count_B1"], output)
