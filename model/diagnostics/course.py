"""The course of a training, as its folder has it: one line of `history.jsonl` an evaluation."""

import json
from pathlib import Path
from typing import Any

import torch

from model import history
from model.diagnostics.watch import OPENING, watched
from model.tasks.step_model import StepModel
from model.tasks.task import Batch, TaskModel

PREFIX = "gates."
_ROWS, _STEPS = 4, 64


@torch.no_grad()
def gate_means(model: TaskModel, batch: Batch) -> dict[str, float]:
    """What to write down of the gates at an evaluation: a small look that costs a few milliseconds and draws nothing.

    Args:
        model: Runs in evaluation mode and goes back to the mode it came in.
        batch: Always the same one, so that the lines can be compared; its first sequences and steps are read.

    Returns:
        The mean opening of every gate by `gates.layer0.forget` and the like; nothing for a model that does not advance
        a step at a time.
    """
    if not isinstance(model, StepModel):
        return {}
    device = next(model.parameters()).device
    inputs = [tensor[:_ROWS, :_STEPS].to(device) for tensor in batch.inputs]
    training = model.training
    model.eval()
    with watched(model.stack) as layers:
        model(*inputs, model.initial_state(len(inputs[0])))
    model.train(training)
    return {
        f"{PREFIX}layer{k}.{name}": float(gate.mean())
        for k, layer in enumerate(layers)
        for name, gate in layer.gates.items()
        if name in OPENING
    }


def read_course(folder: Path) -> list[dict[str, Any]]:
    """The evaluations, in their order; none where there is no history. A line that was cut short is left out."""
    file = folder / history.NAME
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
