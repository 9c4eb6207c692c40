"""A training: updates, evaluations, checkpoints and early stopping, in a folder of its own."""

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
from model.data.corpus import Corpus
from model.learner import Learner
from model.recipe import Recipe
from model.revision import revision
from model.tasks.characters import bits, evaluate

_EVALUATION_STREAMS = 64
_EVALUATION_CHARACTERS = 4096
"""Side by side, to be fast, but each stream long enough that its cold start does not count; the figure that is kept
at the end comes from a single stream."""


class TrainingError(CarouselError):
    """The folder does not fit what is asked for."""


@dataclass(frozen=True)
class Update:
    """What one update came to."""

    number: int
    """Updates made, this one included."""
    loss: float
    """Nats per character of the chunk it read."""
    validation_nats: float | None
    """Nats per held-out character, where this update was followed by an evaluation."""


class Training:
    """One training and its folder.

    Args:
        recipe: What to train.
        corpus: On what.
        folder: Where `best.safetensors`, `last.safetensors` and `history.jsonl` go.
        resume: Go on from `last.safetensors`; else the folder must hold no checkpoint.

    Raises:
        TrainingError: the folder holds checkpoints, or those of another recipe or text.
        CheckpointError: there is nothing to go on from, or it is damaged.
        DataError: the text is too short for the streams.
    """

    def __init__(self, recipe: Recipe, corpus: Corpus, folder: Path, *, resume: bool = False) -> None:
        if not resume and (found := [name for name in (BEST, LAST) if (folder / name).exists()]):
            raise TrainingError(f"{folder} holds {found[0]}: go on with --resume, or give another --out")
        self.recipe, self.folder = recipe, folder
        self._corpus, self._learner = corpus, Learner(recipe, corpus)
        self._lineage, self.progress = uuid.uuid4().hex, Progress()
        if resume:
            self._resume()
        folder.mkdir(parents=True, exist_ok=True)
        history.forget_after(folder, self.progress.updates)
        self._started = time.monotonic() - self.progress.seconds

    @property
    def summary(self) -> str:
        """What is trained, on how much, and how, in one line."""
        texts = f"{len(self._corpus.training)} characters to learn, {len(self._corpus.validation)} held out"
        return f"{self._learner.summary}; {texts}"

    @property
    def finished(self) -> bool:
        """Whether all updates were made, or patience ended."""
        plan = self.recipe.training
        impatient = plan.patience is not None and self.progress.evaluations_since_best >= plan.patience
        return impatient or self.progress.updates >= plan.updates

    def updates(self) -> Iterator[Update]:
        """Train to the end, one update at a time.

        Whoever stops asking stops the training: the checkpoints of the last evaluation stay, and a resumed
        training goes on from there.

        Raises:
            DivergedError: the loss is no longer finite.
        """
        plan, losses = self.recipe.training, list[float]()
        while not self.finished:
            loss = self._learner.update(self.progress.updates)
            losses.append(loss)
            made = self.progress.updates + 1
            self.progress = self.progress.model_copy(update={"updates": made})
            nats = None
            if made % plan.evaluate_every == 0 or made == plan.updates:
                nats = self._evaluate(training_nats=sum(losses) / len(losses))
                losses.clear()
            yield Update(made, loss, nats)

    def measure(self) -> dict[str, float]:
        """Measure the best weights exactly, as one unbroken stream, and keep the figures in their checkpoint.

        Returns:
            `validation_nats`, `bits_per_character` and `updates`.

        Raises:
            CheckpointError: the best checkpoint is gone or damaged.
        """
        best = self.folder / BEST
        document, tensors = read_checkpoint(best)
        nats = evaluate(load_checkpoint(best).model, self._corpus.validation)
        metrics = document.metrics | _figures(nats)
        write_checkpoint(best, document.model_copy(update={"metrics": metrics}), tensors)
        return metrics

    def _evaluate(self, training_nats: float) -> float:
        held_out = self._corpus.validation
        streams = min(_EVALUATION_STREAMS, len(held_out) // _EVALUATION_CHARACTERS + 1)
        nats = evaluate(self._learner.model, held_out, streams)
        before = self.progress
        better = before.best_nats is None or nats < before.best_nats
        found = {
            "best_nats": nats if better else before.best_nats,
            "evaluations_since_best": 0 if better else before.evaluations_since_best + 1,
            "seconds": time.monotonic() - self._started,
        }
        self.progress = before.model_copy(update=found)
        line = {"training_nats": training_nats, **self._metrics(nats), "seconds": self.progress.seconds}
        history.append(self.folder, line)
        document = self._document(nats)
        if better:
            write_checkpoint(self.folder / BEST, document, weights(self._learner.model))
        # Last of all: what a resumed training starts from must not be ahead of the files beside it.
        going_on = document.model_copy(update={"progress": self.progress})
        write_checkpoint(self.folder / LAST, going_on, self._learner.pack())
        return nats

    def _metrics(self, nats: float) -> dict[str, float]:
        return {**_figures(nats), "updates": float(self.progress.updates)}

    def _document(self, nats: float) -> Document:
        return Document(
            recipe=self.recipe.model_dump(),
            vocabulary=self._corpus.vocabulary.symbols,
            lineage=self._lineage,
            data_sha256=self._corpus.sha256,
            metrics=self._metrics(nats),
            revision=revision(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _resume(self) -> None:
        file = self.folder / LAST
        document, tensors = read_checkpoint(file)
        if document.progress is None:
            raise TrainingError(f"{file} holds weights only, nothing to go on from")
        for key, ours, theirs in _differences(self.recipe.model_dump(), document.recipe):
            raise TrainingError(f"{file} was made with {key} = {theirs!r}, not {ours!r}: give another --out")
        if document.data_sha256 != self._corpus.sha256:
            raise TrainingError(f"{file} was trained on another text: give another --out")
        self._learner.unpack(tensors)
        self._lineage, self.progress = document.lineage, document.progress


def _figures(nats: float) -> dict[str, float]:
    return {"validation_nats": nats, "bits_per_character": bits(nats)}


def _differences(
    ours: dict[str, Any], theirs: dict[str, Any], inside: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for key in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(key), theirs.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, f"{inside}{key}.")
        elif one != other:
            yield f"{inside}{key}", one, other
