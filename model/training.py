"""A training: updates, evaluations, checkpoints and early stopping, in a folder of its own."""

import math
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from carousel.errors import CarouselError
from model import history
from model.checkpoint import (
    BEST,
    LAST,
    Document,
    Progress,
    load_checkpoint,
    read_checkpoint,
    weights,
    write_checkpoint,
)
from model.diagnostics.course import gate_means
from model.learner import DivergedError, Learner
from model.recipe import Recipe
from model.revision import revision
from model.tasks.task import Data


class TrainingError(CarouselError):
    """The folder does not fit what is asked for."""


@dataclass(frozen=True)
class Update:
    """What one update came to."""

    number: int
    """Updates made, this one included."""
    loss: float
    """Of the batch it read, as the task counts it: nats per character, say."""
    figures: dict[str, float] | None
    """On what is held out, where this update was followed by an evaluation."""


class Training:
    """One training and its folder.

    Args:
        recipe: What to train.
        data: On what.
        folder: Where `best.safetensors`, `last.safetensors` and `history.jsonl` go.
        resume: Go on from `last.safetensors`; else the folder must hold no checkpoint.

    Raises:
        TrainingError: the folder holds checkpoints, or those of another recipe or text.
        CheckpointError: there is nothing to go on from, or it is damaged.
        DataError: the text is too short for the streams.
    """

    def __init__(self, recipe: Recipe, data: Data, folder: Path, *, resume: bool = False) -> None:
        if not resume and (found := [name for name in (BEST, LAST) if (folder / name).exists()]):
            raise TrainingError(f"{folder} holds {found[0]}: go on with --resume, or give another --out")
        self.recipe, self.folder = recipe, folder
        self._data, self._learner = data, Learner(recipe, data)
        self.task = self._learner.task
        self._processes = self._learner.processes
        self._lineage, self.progress = uuid.uuid4().hex, Progress()
        if resume:
            self._resume()
        self._written = self.progress.updates
        self._processes.by_first(self._open_folder)
        self._started = time.monotonic() - self.progress.seconds

    @property
    def summary(self) -> str:
        """What is trained, on how much, and how, in one line."""
        return f"{self._learner.summary}; {self.task.summary}"

    @property
    def finished(self) -> bool:
        """Whether all updates were made, or patience ended."""
        plan = self.recipe.training
        impatient = plan.patience is not None and self.progress.evaluations_since_best >= plan.patience
        return impatient or self.progress.updates >= plan.updates

    @property
    def first(self) -> bool:
        """Whether this process speaks for all that train together."""
        return self._processes.first

    def updates(self) -> Iterator[Update]:
        """Train to the end, one update at a time.

        Whoever stops asking stops the training: the checkpoints of the last evaluation stay, and a resumed
        training goes on from there, or from where `save` was called.

        Raises:
            DivergedError: the loss is no longer finite.
        """
        plan = self.recipe.training
        while not self.finished:
            before = self.progress
            loss = self._learner.update(before.updates, before.course)
            made = before.updates + 1
            self.progress = before.model_copy(update={"updates": made, "loss_sum": before.loss_sum + loss})
            figures = None
            if made % plan.evaluate_every == 0 or made == plan.updates:
                figures = self.task.figures(self._evaluate())
            yield Update(made, loss, figures)

    def save(self) -> None:
        """Write what is needed to go on from this very update; all processes call it together."""
        if self._written < self.progress.updates:
            self._write_last(self._document({"updates": float(self.progress.updates)}))

    def agreed(self, number: int) -> int:
        """The largest of the numbers that the processes come with."""
        return self._processes.largest(number)

    def measure(self) -> dict[str, float]:
        """Measure the best weights exactly, a text as one unbroken stream, and keep the figures in their checkpoint.

        Returns:
            The task's figures on what is held out, and `updates`.

        Raises:
            CheckpointError: the best checkpoint is gone or damaged.
        """
        best = self.folder / BEST
        document, tensors = read_checkpoint(best)
        loss = self.task.evaluate(load_checkpoint(best).model, exactly=True)
        metrics = document.metrics | self.task.figures(loss)
        write_checkpoint(best, document.model_copy(update={"metrics": metrics}), tensors)
        return metrics

    def _evaluate(self) -> float:
        nats = self._processes.by_first(self._held_out)
        before = self.progress
        if not math.isfinite(nats):
            raise DivergedError(
                f"after {before.updates} updates the held-out loss is {nats}; try a smaller learning_rate"
            )
        better = before.best_nats is None or nats < before.best_nats
        found = {
            "best_nats": nats if better else before.best_nats,
            "evaluations_since_best": 0 if better else before.evaluations_since_best + 1,
            "course": (*before.course, nats),
            "loss_sum": 0.0,
            "seconds": time.monotonic() - self._started,
        }
        self.progress = before.model_copy(update=found)
        every = self.recipe.training.evaluate_every
        metrics = {**self.task.figures(nats), "updates": float(before.updates)}
        trained = next(iter(metrics)).replace("validation", "training")
        line = {trained: before.loss_sum / (before.updates % every or every), **metrics}
        document = self._document(metrics)
        self._processes.by_first(lambda: self._keep(line, document, better=better))
        # Last of all: what a resumed training starts from must not be ahead of the files beside it.
        self._write_last(document)
        return nats

    def _held_out(self) -> float:
        return self.task.evaluate(self._learner.evaluated)

    def _keep(self, line: dict[str, float], document: Document, *, better: bool) -> None:
        gates = gate_means(self._learner.evaluated, self.task.batch(0))
        history.append(self.folder, line | gates | {"seconds": self.progress.seconds})
        if better:
            write_checkpoint(self.folder / BEST, document, weights(self._learner.evaluated))

    def _write_last(self, document: Document) -> None:
        self.progress = self.progress.model_copy(update={"seconds": time.monotonic() - self._started})
        going_on, tensors = document.model_copy(update={"progress": self.progress}), self._learner.pack()
        self._processes.by_first(lambda: write_checkpoint(self.folder / LAST, going_on, tensors))
        self._written = self.progress.updates

    def _document(self, metrics: dict[str, float]) -> Document:
        return Document(
            recipe=self.recipe.model_dump(),
            task=self.recipe.task,
            vocabulary=self._data.names,
            lineage=self._lineage,
            data_sha256=self._data.sha256,
            metrics=metrics,
            revision=revision(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _open_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        history.forget_after(self.folder, self.progress.updates)

    def _resume(self) -> None:
        file = self.folder / LAST
        document, tensors = read_checkpoint(file)
        if document.progress is None:
            raise TrainingError(f"{file} holds weights only, nothing to go on from")
        theirs = Recipe.from_document(document.recipe)  # with the keys that came after it
        ours, other_dump = (recipe.model_dump(exclude={"target"}) for recipe in (self.recipe, theirs))
        for key, one, other in _differences(ours, other_dump):
            raise TrainingError(f"{file} was made with {key} = {other!r}, not {one!r}: give another --out")
        if document.data_sha256 != self._data.sha256:
            raise TrainingError(f"{file} was trained on other data: give another --out")
        self._learner.unpack(tensors)
        self._lineage, self.progress = document.lineage, document.progress


def _differences(
    ours: dict[str, Any], theirs: dict[str, Any], inside: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for key in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(key), theirs.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, f"{inside}{key}.")
        elif one != other:
            yield f"{inside}{key}", one, other
