"""The `[target]` section of a recipe: what `carousel reproduce` is to reach with it."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from model.section import Positive, Section

NONE_KNOWN = "none known"


class TargetRecipe(Section):
    """`[target]`: a figure of the task's test, and what others have of it. It has no influence on a training."""

    figure: Annotated[str, Field(min_length=1)]
    """Its name among those of the test."""
    at_most: float | None = None
    at_least: float | None = None
    """What to reach: one of the two."""
    published: str = NONE_KNOWN
    """What others report, and where."""
    verified: bool = False
    """Whether somebody looked `published` up for this recipe; else it is told as quoted from memory."""
    minutes: Positive = 4.0
    """After so much time of the processor a training is cut off, at its next evaluation."""
    seeds: Annotated[int, Field(ge=1)] = 1
    """How many trainings, with the recipe's seed and those after it."""

    @model_validator(mode="after")
    def _one_direction(self) -> Self:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("expected at_most or at_least, one of the two")
        return self

    @property
    def said(self) -> str:
        """What to reach, in words."""
        return f"≤ {self.at_most:g}" if self.at_most is not None else f"≥ {self.at_least:g}"

    def reached(self, figure: float) -> bool:
        """Whether a figure is good enough."""
        if self.at_most is not None:
            return figure <= self.at_most
        return self.at_least is not None and figure >= self.at_least
