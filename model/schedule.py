"""The learning rate over a training.

Every schedule is a function of how far the training is and of what its evaluations gave, so that a resumed training
needs no scheduler's memory.
"""

import math
from collections.abc import Sequence
from itertools import accumulate

from model.training_recipe import TrainingRecipe

_START = 1 / 25
_END = 1e-4
_SETBACK = 1 / 4


def learning_rate(plan: TrainingRecipe, updates: int, course: Sequence[float]) -> float:
    """The learning rate of the next update.

    Args:
        plan: Peak, schedule and length.
        updates: Made so far.
        course: What every evaluation so far gave, nats; only `plateau` looks at it.
    """
    return plan.learning_rate * _share(plan, updates / plan.updates, course)


def one_cycle(progress: float, warm_up: float) -> float:
    """Learning rate as a share of its peak: up along half a cosine, down along another.

    Args:
        progress: Updates made over updates planned, in [0, 1].
        warm_up: Where the peak lies, in [0, 1).

    Source: Smith & Topin 2018 (super-convergence), with the cosine slopes and the start (1/25) that fastai and
    PyTorch's OneCycleLR made customary.
    """
    if progress < warm_up:
        return _cosine(_START, 1.0, progress / warm_up)
    return _cosine(1.0, _END, (progress - warm_up) / (1 - warm_up))


def cosine(progress: float, warm_up: float) -> float:
    """Up along a line, down to nothing along half a cosine; arguments as those of `one_cycle`.

    Source: Loshchilov & Hutter 2017 (SGDR, equation 5, without restarts).
    """
    if progress < warm_up:
        return rise(progress, warm_up)
    return _cosine(1.0, 0.0, (progress - warm_up) / (1 - warm_up))


def rise(progress: float, warm_up: float) -> float:
    """Up along a line from 1/25, then level; arguments as those of `one_cycle`.

    Source: gradual warm-up, Goyal et al. 2017.
    """
    return _START + (1 - _START) * progress / warm_up if progress < warm_up else 1.0


def setbacks(course: Sequence[float]) -> int:
    """How many evaluations brought no improvement over the best before them.

    The `plateau` schedule divides by 4 at each, as the word language model among PyTorch's examples does.
    """
    return sum(nats >= best for nats, best in zip(course[1:], accumulate(course, min), strict=False))


def _share(plan: TrainingRecipe, progress: float, course: Sequence[float]) -> float:
    match plan.schedule:
        case "one-cycle":
            return one_cycle(progress, plan.warm_up)
        case "cosine":
            return cosine(progress, plan.warm_up)
        case "plateau":
            return rise(progress, plan.warm_up) * _SETBACK ** setbacks(course)
        case "constant":
            return rise(progress, plan.warm_up)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
