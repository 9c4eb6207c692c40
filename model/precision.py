"""The number format of the matrix products in training."""

from pathlib import Path
from typing import Literal

import torch


def fabric_precision(precision: Literal["fp32", "bf16", "auto"]) -> Literal["32-true", "bf16-mixed"]:
    """What Lightning Fabric calls it; weights, loss and carried state are float32 in both.

    Args:
        precision: `auto` takes bfloat16 where it is fast: CUDA, or a CPU with matrix tiles (AMX). Other
            CPUs emulate it, slower than float32.
    """
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_available() or _has_tiles() else "fp32"
    return "bf16-mixed" if precision == "bf16" else "32-true"


def _has_tiles() -> bool:
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and "amx_bf16" in flags.read_text(encoding="utf-8")
