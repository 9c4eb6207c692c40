"""The number format of the matrix products in training."""

from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric.plugins.precision import MixedPrecision, Precision

from carousel.errors import CarouselError


class PrecisionError(CarouselError):
    """This machine cannot compute in the format asked for."""


class Autocast(MixedPrecision):
    """Products in a short format, everything else in float32, the carried state above all.

    Fabric by itself rounds whatever goes into a model to the short format: the cell of an LSTM would lose, at every
    chunk, what thousands of steps had added up.
    """

    def convert_input(self, data: Any) -> Any:
        """What comes in, as it is."""
        return data


def fabric_precision(precision: Literal["fp32", "bf16", "fp16", "auto"]) -> Precision:
    """What Lightning Fabric makes of it; weights, loss and carried state are float32 in all of them.

    Args:
        precision: `auto` takes bfloat16 where it is fast: CUDA, or a CPU with matrix tiles (AMX). Other
            CPUs emulate it, slower than float32. `fp16` scales the loss (Micikevicius et al. 2018).

    Raises:
        PrecisionError: `fp16` without CUDA.
    """
    cuda = torch.cuda.is_available()
    if precision == "auto":
        precision = "bf16" if cuda or _has_tiles() else "fp32"
    if precision == "fp32":
        return Precision()
    if precision == "fp16":
        if not cuda:  # oneDNN has no LSTM in fp16
            raise PrecisionError(
                "precision fp16 needs a CUDA device, and there is none: take bf16, fp32 or auto"
            )
        return Autocast("16-mixed", "cuda")
    device = "cuda" if cuda else "mps" if torch.backends.mps.is_available() else "cpu"
    return Autocast("bf16-mixed", device)


def _has_tiles() -> bool:
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and "amx_bf16" in flags.read_text(encoding="utf-8")
