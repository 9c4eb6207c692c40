"""The chapters on one running session, from what its server told of its gates."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from model.diagnostics.chapter import Chapter
from model.diagnostics.pictures import canvas, style, svg


class Moment(NamedTuple):
    """A session as it stood once."""

    steps: int
    """That it had made."""
    observed: dict[str, float]
    """By names such as `layer0.forget.mean`, in the contract's order."""


class _Kind(NamedTuple):
    title: str
    look_for: str
    axis: str
    share: bool
    """Whether it stays between 0 and 1."""


_KINDS = {
    "mean": _Kind(
        "How open the gates are",
        "A forget or update gate that jumps marks the step at which something new came in; a level line is a gate that "
        "does not, on the whole, heed its input.",
        "mean opening",
        True,
    ),
    "saturated": _Kind(
        "How many units switch",
        "A share that goes up to 1 and stays there is a gate that reacts to nothing any more.",
        "share of units",
        True,
    ),
    "norm": _Kind(
        "How large the state is",
        "A line that climbs without end is a cell that fills up; a level one has found a balance of keeping and "
        "forgetting.",
        "Euclidean norm",
        False,
    ),
}
_HOW = (
    "Each point is a mean over the steps of the session's last run before the server was asked; runs between two "
    "questions are not seen. Saturated is a unit below 0.1 or above 0.9."
)
_FEW = 60
"""Points that are marked one by one."""


def live_chapters(moments: Sequence[Moment]) -> list[Chapter]:
    """One chapter a kind of statistic, with a plot for each layer."""
    names = list(dict.fromkeys(name for moment in moments for name in moment.observed))
    with style():
        found = (_chapter(kind, _by_layer(names, kind), moments) for kind in _KINDS)
        return [chapter for chapter in found if chapter is not None]


def _by_layer(names: Sequence[str], kind: str) -> dict[str, dict[str, str]]:
    """Names of statistics by layer and by what they are of."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        if name.endswith(f".{kind}"):
            layer, _, what = name.removesuffix(f".{kind}").rpartition(".")
            found.setdefault(layer, {})[what] = name
    return found


def _chapter(kind: str, layers: dict[str, dict[str, str]], moments: Sequence[Moment]) -> Chapter | None:
    if not layers:
        return None
    title, look_for, label, share = _KINDS[kind]
    steps = [moment.steps for moment in moments]
    numbers: dict[str, Any] = {"steps": steps}
    figure, axes = canvas(len(layers), height=2.3, sharex=True, sharey=share)
    for (layer, whats), axis in zip(layers.items(), axes[:, 0], strict=True):
        for what, name in whats.items():
            # A version that tells other things may take over meanwhile.
            line = [moment.observed.get(name, math.nan) for moment in moments]
            numbers.setdefault(layer, {})[what] = line
            axis.plot(steps, line, "o-" if len(steps) <= _FEW else "-", markersize=3, label=what)
        axis.set_title(layer.replace("layer", "layer "))
        axis.set_ylabel(label)
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    if share:
        axes[0][0].set_ylim(0, 1)
    axes[-1][0].set_xlabel("steps of the session")
    return Chapter(kind, title, look_for, numbers, svg(figure), _HOW)
