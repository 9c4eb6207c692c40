"""Everything that is measured on a graph before it may become a file."""

import numpy as np
import onnx
from torch import nn

from carousel.contract import Contract
from export.file import LARGEST_BYTES
from export.invariance import invariance_checks
from export.parity import parity_checks
from export.report import Check, Verification
from export.runtime import OnnxStep
from export.structure import broken_weights, structure_problems

_SEED = 0


def verify(model: onnx.ModelProto, contract: Contract, reference: nn.Module) -> Verification:
    """Measure a step graph: alone, against the PyTorch model it was made from, and against itself.

    Args:
        model: The graph, weights inside.
        contract: What it is to promise.
        reference: The model; called with tokens `[1, T]` int64 and a tuple of LSTM states `[1, H]`.
    """
    structure = _structure(model)
    if not all(check.passed for check in structure):
        return Verification(structure, ())
    run, rng = OnnxStep(model, contract), np.random.default_rng(_SEED)
    parity = parity_checks(run, reference, contract, rng)
    return Verification((*structure, *parity), invariance_checks(run, contract, rng))


def _structure(model: onnx.ModelProto) -> tuple[Check, ...]:
    weight_bytes = sum(len(weight.raw_data) for weight in model.graph.initializer)
    size = Check("size of the weights in bytes", weight_bytes, LARGEST_BYTES)
    if not size.passed:
        return (size,)
    problems, broken = structure_problems(model), broken_weights(model)
    return (
        size,
        Check(
            "onnx checker, shape inference, weight shapes: problems",
            len(problems),
            0,
            "; ".join(problems[:1]),
        ),
        Check("weights that hold NaN or infinity", len(broken), 0, ", ".join(broken[:3])),
    )
