"""Recipes: everything a training is made from, as a TOML file.

Recipes that come with Carousel lie in `model/recipes/`.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from carousel.contract import first_mistake
from carousel.errors import CarouselError

SHIPPED = Path(__file__).parent / "recipes"

Count = Annotated[int, Field(ge=1)]
Size = Annotated[int, Field(ge=1, le=16_384)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class RecipeError(CarouselError):
    """There is no such recipe, or a value in it is wrong."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DataRecipe(_Section):
    """`[data]`: which text, and how much of it."""

    source: Annotated[str, Field(min_length=1)]
    """A file, a folder, `stdlib` or the name of a data set; `--data` overrides it."""
    characters: Annotated[int, Field(ge=2)] | None = None
    """At most this much text, held-out part included; None: all."""
    vocabulary: Annotated[int, Field(ge=2)] = 256
    """At most this many symbols, the unknown one included; the rarest characters become unknown."""


class ModelRecipe(_Section):
    """`[model]`: the sizes of the network."""

    embedding: Size
    hidden: Size
    layers: Size
    dropout: Share = 0.0
    """Between layers."""


class TrainingRecipe(_Section):
    """`[training]`: how the weights are found."""

    updates: Count
    streams: Count
    """B: contiguous streams that are read side by side, the state carried from update to update."""
    steps: Count
    """T: characters of each stream that an update reads, and through which gradients flow."""
    learning_rate: Positive
    """The peak of the one-cycle schedule."""
    warm_up: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the updates in which the learning rate rises."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """On matrices; biases are left alone."""
    clip: Positive = 1.0
    """Largest global norm of the gradient."""
    evaluate_every: Count
    """Updates between two evaluations, each of which writes the checkpoints."""
    patience: Count | None = None
    """Evaluations without improvement after which training stops; None: it runs to its end."""
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    """`auto` is bf16 where the hardware is made for it."""
    seed: Annotated[int, Field(ge=0)] = 0


class Recipe(_Section):
    """A whole recipe."""

    task: Literal["characters"]
    data: DataRecipe
    model: ModelRecipe
    training: TrainingRecipe

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        """Check a document as TOML or JSON gives it.

        Raises:
            RecipeError: one line with the first mistake; an unknown key is one.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise RecipeError(first_mistake(error)) from error

    def with_source(self, source: str) -> Self:
        """The same recipe on another text."""
        return self.model_copy(update={"data": self.data.model_copy(update={"source": source})})


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
