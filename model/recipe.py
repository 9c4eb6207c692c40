"""Recipes: everything a training is made from, as a TOML file.

Recipes that come with Carousel lie in `model/recipes/`.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError

from carousel.contract import first_mistake
from carousel.errors import CarouselError
from model.model_recipe import ModelRecipe
from model.section import Section
from model.training_recipe import TrainingRecipe

SHIPPED = Path(__file__).parent / "recipes"


class RecipeError(CarouselError):
    """There is no such recipe, or a value in it is wrong."""


class DataRecipe(Section):
    """`[data]`: which text, and how much of it."""

    source: Annotated[str, Field(min_length=1)]
    """A file, a folder, `stdlib` or the name of a data set; `--data` overrides it."""
    characters: Annotated[int, Field(ge=2)] | None = None
    """At most this much text, held-out part included; None: all."""
    vocabulary: Annotated[int, Field(ge=2)] = 256
    """At most this many symbols, the unknown one included; the rarest characters become unknown."""


class Recipe(Section):
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
