"""Averages of the weights over the updates of a training."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from model.training_recipe import TrainingRecipe


def averaged(model: nn.Module, plan: TrainingRecipe, device: torch.device) -> AveragedModel | None:
    """A second model for the average of the weights; None where the plan wants none.

    `ema` forgets exponentially. `asgd` is the plain mean since `stalled`: with AdamW instead of SGD beneath it,
    otherwise the averaging of NT-ASGD.

    Args:
        model: Copied; it stays as it is.
        plan: Which average.
        device: Of the copy.

    Source: Polyak & Juditsky 1992; NT-ASGD, Merity, Keskar & Socher 2018.
    """
    if plan.average is None:
        return None
    ema, asgd = get_ema_multi_avg_fn(plan.average_decay), get_swa_multi_avg_fn()  # type: ignore[no-untyped-call]
    return AveragedModel(model, device, multi_avg_fn=ema if plan.average == "ema" else asgd)


def begun(plan: TrainingRecipe, course: Sequence[float]) -> bool:
    """Whether the next update's weights go into the average.

    Args:
        plan: Which average.
        course: What every evaluation so far gave, nats.
    """
    return plan.average == "ema" or (plan.average == "asgd" and stalled(course, plan.average_patience))


def stalled(course: Sequence[float], patience: int) -> bool:
    """Whether an evaluation was ever worse than the best of all but the last `patience` before it.

    Source: the non-monotonic trigger of NT-ASGD, as the program of its authors has it.
    """
    return any(
        nats > best for nats, best in zip(course[patience + 1 :], accumulate(course, min), strict=False)
    )
