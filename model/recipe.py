"""Recipes: everything a training is made from, as a TOML file.

Recipes that come with Carousel lie in `model/recipes/`.
"""

import tomllib
from pathlib import Path
from typing import Any, Literal, Self, cast, get_args

from pydantic import ValidationError, model_validator

from carousel.errors import CarouselError
from carousel.mistakes import first_mistake
from model.data_recipe import (
    DataRecipe,
    DataSection,
    GeneratedData,
    ListOpsData,
    PairsData,
    PiecesData,
    SeriesData,
    WatchedData,
)
from model.model_recipe import ModelRecipe
from model.section import Section
from model.target_recipe import TargetRecipe
from model.training_recipe import TrainingRecipe

SHIPPED = Path(__file__).parent / "recipes"


class RecipeError(CarouselError):
    """There is no such recipe, or a value in it is wrong."""


TaskName = Literal[
    "characters",
    "words",
    "forecast",
    "adding",
    "copy",
    "counting",
    "music",
    "anomalies",
    "listops",
    "translate",
]
_READ_NUMBERS = ("forecast", "adding", "music", "anomalies")
_ON_STREAMS = ("characters", "words")


class Recipe(Section):
    """A whole recipe; `from_document` gives the kind that belongs to its task."""

    task: TaskName
    data: DataSection
    model: ModelRecipe
    training: TrainingRecipe
    target: TargetRecipe | None = None

    @model_validator(mode="after")
    def _fits_its_task(self) -> Self:
        if self.task in _READ_NUMBERS and (self.model.embedding is not None or self.model.tie):
            raise ValueError(f"task {self.task} reads numbers: expected no embedding, and none to tie")
        if self.task not in _READ_NUMBERS and self.model.embedding is None:
            raise ValueError("model.embedding: expected a value, came none")
        if self.task not in _ON_STREAMS and self.training.stride is not None:
            raise ValueError(f"task {self.task} has no streams to move on in: expected no training.stride")
        return self

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Recipe":
        """Check a document as TOML or JSON gives it.

        Raises:
            RecipeError: one line with the first mistake; an unknown key is one.
        """
        kind = next((kind for kind in _KINDS if document.get("task") in _tasks_of(kind)), Recipe)
        try:
            return kind.model_validate(document)
        except ValidationError as error:
            raise RecipeError(first_mistake(error)) from error

    def with_source(self, source: str) -> "Recipe":
        """The same recipe on other data.

        Raises:
            RecipeError: its task draws its own.
        """
        document = self.model_dump()
        return self.from_document(document | {"data": document["data"] | {"source": source}})


class TextRecipe(Recipe):
    """A recipe that learns a text."""

    task: Literal["characters", "words"]
    data: DataRecipe


class SeriesRecipe(Recipe):
    """A recipe that forecasts the columns of a table."""

    task: Literal["forecast"]
    data: SeriesData


class MusicRecipe(Recipe):
    """A recipe that predicts chords."""

    task: Literal["music"]
    data: PiecesData


class AnomaliesRecipe(Recipe):
    """A recipe that learns what is usual."""

    task: Literal["anomalies"]
    data: WatchedData


class GeneratedRecipe(Recipe):
    """A recipe whose examples are drawn."""

    task: Literal["adding", "copy", "counting"]
    data: GeneratedData = GeneratedData()


class ListOpsRecipe(Recipe):
    """A recipe that evaluates expressions."""

    task: Literal["listops"]
    data: ListOpsData = ListOpsData()


class TranslateRecipe(Recipe):
    """A recipe that reads one sequence and writes another."""

    task: Literal["translate"]
    data: PairsData


_KINDS: tuple[type[Recipe], ...] = (
    TextRecipe,
    SeriesRecipe,
    MusicRecipe,
    AnomaliesRecipe,
    GeneratedRecipe,
    ListOpsRecipe,
    TranslateRecipe,
)


def data_section(task: TaskName) -> type[DataSection]:
    """The `[data]` of a task."""
    kind = next(kind for kind in _KINDS if task in _tasks_of(kind))
    return cast(type[DataSection], kind.model_fields["data"].annotation)


def _tasks_of(kind: type[Recipe]) -> tuple[str, ...]:
    return get_args(kind.model_fields["task"].annotation)


def find_recipe(name: str) -> Path:
    """The file of a recipe given by its path (ends in `.toml`) or by the name of a shipped one.

    Raises:
        RecipeError: there is none; the line names those that are shipped.
    """
    path = Path(name) if name.endswith(".toml") else SHIPPED / f"{name}.toml"
    if not path.is_file():
        shipped = ", ".join(sorted(recipe.stem for recipe in SHIPPED.glob("*.toml")))
        raise RecipeError(f"no recipe {name}: expected a .toml file or one of {shipped}")
    return path


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        RecipeError: one line that names the file and the mistake.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        return Recipe.from_document(document)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecipeError) as error:
        raise RecipeError(f"{path}: {error}") from error
