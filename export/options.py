"""What a person may ask of an export beside the model itself."""

from typing import Literal, NamedTuple

Target = Literal["cpu", "cuda"]
Precision = Literal["fp32", "fp16", "int8-weights", "int8-dynamic"]


class Options(NamedTuple):
    """One way to write a model."""

    target: Target = "cpu"
    """cuda: the arena form, of operators that stay on CUDA."""
    observe: bool = False
    """Add what the gates do as an output; no operator of ONNX tells, so that every layer is a Scan."""
    precision: Precision = "fp32"
    batch_dependent: bool = False
    """Whether a session's results may depend on its batch-mates by more than rounding."""
    single_step: bool = False
    """Write one step, of products alone: what a CUDA graph can record. Runs are no longer then."""


PLAIN = Options()
