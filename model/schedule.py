"""The learning rate over a training."""

import math

_START = 1 / 25
_END = 1e-4


def one_cycle(progress: float, warm_up: float) -> float:
    """Learning rate as a share of its peak: up along half a cosine, down along another.

    A function of the progress alone, so that a resumed training needs no scheduler's memory.

    Args:
        progress: Updates made over updates planned, in [0, 1].
        warm_up: Where the peak lies, in (0, 1).

    Source: Smith & Topin 2018 (super-convergence), with the cosine slopes and the start (1/25) that fastai and
    PyTorch's OneCycleLR made customary.
    """
    if progress < warm_up:
        return _cosine(_START, 1.0, progress / warm_up)
    return _cosine(1.0, _END, (progress - warm_up) / (1 - warm_up))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
