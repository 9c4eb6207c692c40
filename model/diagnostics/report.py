"""The whole of a diagnosis, and its files: `index.html` and `report.json`."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from model.diagnostics.beside import untrained_rnn
from model.diagnostics.chapter import Chapter
from model.diagnostics.course import read_course
from model.diagnostics.flow import Flow, gradient_flow
from model.diagnostics.page import page
from model.diagnostics.pictures import style
from model.diagnostics.show_course import evolution_chapter, learning_chapter
from model.diagnostics.show_fixed_points import fixed_points_chapter
from model.diagnostics.show_gates import gate_chapters
from model.diagnostics.show_gradients import flow_chapter, norms_chapter
from model.diagnostics.show_memory import capacity_chapter, information_chapter
from model.diagnostics.subject import Subject
from model.diagnostics.watch import Layer, watched
from model.files import write_whole

PAGE, NUMBERS = "index.html", "report.json"

Tell = Callable[[str], None]
"""Says what is being done."""


def diagnose(subject: Subject, folder: Path, beside: Subject | None, tell: Tell) -> list[Chapter]:
    """Everything that is asked of a model.

    Args:
        subject: The model, and what it is run on.
        folder: Where its checkpoint lies, and the history of its training.
        beside: Another one whose gradient flow is drawn beside; None: that of an untrained RNN.
        tell: Called with what comes next.
    """
    with style():
        tell("running the model")
        with watched(subject.stack) as layers:
            outputs = subject.outputs()
        course = read_course(folder)
        chapters = [learning_chapter(course), evolution_chapter(course), *gate_chapters(layers)]
        tell("gradients")
        chapters.append(norms_chapter(layers, subject.mean_loss(outputs)))
        flows = _flows(layers, *subject.last_loss(outputs))
        if beside is None:
            chapters.append(
                flow_chapter(flows, untrained_rnn(subject.stack, layers[0].x_TBI), "an untrained RNN")
            )
        else:
            chapters.append(flow_chapter(flows, _flows_of(beside), beside.name))
        tell("information and capacity")
        chapters += [information_chapter(layers), capacity_chapter(subject.stack, layers)]
        tell("fixed points")
        return [*chapters, fixed_points_chapter(layers)]


def write_report(out: Path, title: str, facts: Mapping[str, str], chapters: Sequence[Chapter]) -> None:
    """Write both files.

    Args:
        out: The folder; made if it is not there.
        title: Of the page.
        facts: About the model and the run, on top of the page and in the numbers.
        chapters: In their order.
    """
    out.mkdir(parents=True, exist_ok=True)
    numbers = {"title": title, "facts": dict(facts), **{one.name: one.numbers for one in chapters}}
    write_whole(out / NUMBERS, (json.dumps(_finite(numbers), indent=1, allow_nan=False) + "\n").encode())
    write_whole(out / PAGE, page(title, facts, chapters).encode())


def _flows(layers: list[Layer], step: int, loss: Tensor) -> list[Flow]:
    return [gradient_flow(layer, step, loss) for layer in layers]


def _flows_of(subject: Subject) -> list[Flow]:
    with watched(subject.stack) as layers:
        outputs = subject.outputs()
    return _flows(layers, *subject.last_loss(outputs))


def _finite(value: Any) -> Any:
    """The same with null for what JSON cannot say: infinite, or not a number."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
