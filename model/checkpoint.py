"""Checkpoints: one safetensors file, whose header holds a JSON document under `carousel.checkpoint`.

A digest of document and tensors beside it finds the damage that leaves a file readable.

Tensor names begin with what they belong to: `model.` the weights; the others are what a training needs to go on (see
`model.learner`).
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from carousel.errors import CarouselError
from carousel.mistakes import first_mistake
from model.data.vocabulary import UNKNOWN
from model.files import write_whole
from model.recipe import Recipe, RecipeError, TaskName
from model.tasks.task import TaskModel
from model.tasks.tasks import new_model

METADATA_KEY = "carousel.checkpoint"
DIGEST_KEY = "carousel.sha256"
FORMAT: Final = 1
BEST = "best.safetensors"
LAST = "last.safetensors"


class CheckpointError(CarouselError):
    """The file is no checkpoint of ours, or it is damaged."""


class Progress(BaseModel):
    """How far a training had come."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    updates: Annotated[int, Field(ge=0)] = 0
    """Updates made; they also say where the streams stand in the text and the learning rate in its cycle."""
    best_nats: float | None = None
    evaluations_since_best: int = 0
    course: tuple[float, ...] = ()
    """What every evaluation so far gave, nats."""
    loss_sum: float = 0.0
    """Nats, over the updates since the last evaluation."""
    seconds: float = 0.0


class Document(BaseModel):
    """The JSON document of a checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    task: TaskName = "characters"
    recipe: dict[str, Any]
    vocabulary: tuple[str, ...]
    """The symbols of the model, or the columns of its numbers."""
    unknown: Literal[0] = UNKNOWN
    lineage: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    """New with each fresh training, inherited by a resumed one."""
    data_sha256: str
    metrics: dict[str, float]
    revision: str
    """Of this code, as git describes it; empty where there is no git."""
    created: str
    """UTC, ISO 8601."""
    progress: Progress | None = None
    """None: nothing here to go on from."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and where it comes from."""

    model: TaskModel
    """In evaluation mode, float32, on the CPU."""
    recipe: dict[str, Any]
    vocabulary: tuple[str, ...]
    unknown: int
    """The token of every symbol outside the vocabulary."""
    lineage: str
    data_sha256: str
    metrics: dict[str, float]
    """The task's figures for these weights, such as `validation_nats`, and the `updates` they took."""
    revision: str
    created: str
    task: str


def load_checkpoint(path: Path) -> Checkpoint:
    """Load a trained model.

    Args:
        path: A checkpoint, or the folder of a run, of which the best one is taken.

    Raises:
        CheckpointError: one line that names the file and says what is wrong with it.
    """
    file = path / BEST if path.is_dir() else path
    document, tensors = read_checkpoint(file)
    try:
        model = _model(document, tensors)
    except (RecipeError, CheckpointError) as error:
        raise CheckpointError(f"{file}: {error}") from error
    return Checkpoint(
        model=model.eval(),
        recipe=document.recipe,
        vocabulary=document.vocabulary,
        unknown=document.unknown,
        lineage=document.lineage,
        data_sha256=document.data_sha256,
        metrics=document.metrics,
        revision=document.revision,
        created=document.created,
        task=document.task,
    )


def write_checkpoint(file: Path, document: Document, tensors: dict[str, Tensor]) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        file: Replaced if it exists.
        document: What the tensors are.
        tensors: By name, each name beginning with what it belongs to; on any device.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = document.model_dump_json()
    write_whole(file, save(tensors, {METADATA_KEY: text, DIGEST_KEY: _digest(text, tensors)}))


def read_checkpoint(file: Path) -> tuple[Document, dict[str, Tensor]]:
    """The document and the tensors of a checkpoint, unharmed.

    Raises:
        CheckpointError: one line that names the file and says what is wrong with it.
    """
    if not file.is_file():
        raise CheckpointError(f"{file}: no such checkpoint")
    try:
        with safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
            document = _document(header)
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no dict
    except SafetensorError as error:
        raise CheckpointError(f"{file}: not a safetensors file, or cut short ({error})") from error
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error
    if header.get(DIGEST_KEY) != _digest(header[METADATA_KEY], tensors):
        raise CheckpointError(f"{file}: damaged, it is not what was written")
    return document, tensors


def weights(model: TaskModel) -> dict[str, Tensor]:
    """The tensors of a model as a checkpoint names them."""
    return {f"model.{name}": tensor for name, tensor in model.state_dict().items()}


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors that belong to one thing, by their names in it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _document(metadata: dict[str, str]) -> Document:
    if METADATA_KEY not in metadata:
        raise CheckpointError(f"not a checkpoint of Carousel, its header has no {METADATA_KEY}")
    try:
        found = json.loads(metadata[METADATA_KEY]).get("format")
    except (ValueError, AttributeError) as error:
        raise CheckpointError("damaged, its document is not a JSON object") from error
    if found != FORMAT:
        raise CheckpointError(f"has format {found!r}, this release reads format {FORMAT}")
    try:
        return Document.model_validate_json(metadata[METADATA_KEY])
    except ValidationError as error:
        raise CheckpointError(f"damaged, {first_mistake(error)}") from error


def _model(document: Document, tensors: dict[str, Tensor]) -> TaskModel:
    with torch.device("meta"):  # shapes only: a wrong document must not make us allocate what it claims
        model = new_model(Recipe.from_document(document.recipe), document.vocabulary)
    found, expected = part(tensors, "model."), model.state_dict()
    if found.keys() != expected.keys():
        raise CheckpointError(
            f"weights missing or foreign: {', '.join(sorted(found.keys() ^ expected.keys()))}"
        )
    for name, weight in found.items():
        _check(name, weight, expected[name])
    model.load_state_dict(found, assign=True)
    return model


def _check(name: str, weight: Tensor, expected: Tensor) -> None:
    if weight.shape != expected.shape or weight.dtype != expected.dtype:
        came, wanted = f"{list(weight.shape)} {weight.dtype}", f"{list(expected.shape)} {expected.dtype}"
        raise CheckpointError(f"{name} is {came}, its recipe says {wanted}")
    if not torch.isfinite(weight).all():
        raise CheckpointError(f"{name} holds numbers that are not finite")


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
