"""The graph of a checkpoint, whatever its task."""

import onnx

from export.characters import characters_model
from export.numbers import numbers_model
from export.options import PLAIN, Options
from model.checkpoint import Checkpoint
from model.tasks.numbers import NumberModel


def step_model(checkpoint: Checkpoint, options: Options = PLAIN) -> onnx.ModelProto:
    """Draw the step graph of a checkpoint; its contract promises nothing that was not measured yet.

    Raises:
        ExportError: its recurrence has no form in ONNX here.
    """
    if isinstance(checkpoint.model, NumberModel):
        return numbers_model(checkpoint, options)
    return characters_model(checkpoint, options)
