"""The `[data]` section of a recipe: what each kind of task can be told of its data."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from model.section import Count, Section

Names = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(lambda names: tuple(names) if isinstance(names, list) else names),
]
"""Names in an order that counts; a list in TOML and JSON."""


class DataSection(Section):
    """What all have in common."""

    source: Annotated[str, Field(min_length=1)]
    """A file, a folder or the name of a data set; `--data` overrides it."""


class DataRecipe(DataSection):
    """`[data]` of `characters` and `words`: which text, and how much of it. Sources: also `stdlib` and `docstrings`."""

    characters: Annotated[int, Field(ge=2)] | None = None
    """At most this much text, held-out part included; None: all."""
    vocabulary: Annotated[int, Field(ge=2)] = 256
    """At most this many symbols, the unknown one included; the rarest become unknown."""


class SeriesData(DataSection):
    """`[data]` of `forecast`: which columns of a table stand for what. Sources: also `waves`, which is generated."""

    values: Annotated[Names, Field(min_length=1)]
    """The columns to forecast."""
    past: Names = ()
    """Exogenous columns that are known up to the present."""
    known: Names = ()
    """Exogenous columns that are known ahead, such as what the calendar says."""
    horizon: Count = 1
    """How many steps ahead."""
    recursive: bool = False
    """One step ahead, and on from its own forecasts; False: all steps of the horizon at once."""
    changes: bool = False
    """Values and past columns reach the network as changes from step to step, for series that do not keep their level."""
    rows: Count | None = None
    """At most this many, from the first; None: all. Three fifths are for training, a fifth for each other part."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        columns = self.columns
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise ValueError(f"expected each column once, came {', '.join(twice)} again")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """All that are read, in the order of the ports."""
        return (*self.values, *self.past, *self.known)


class PiecesData(DataSection):
    """`[data]` of `music`: a file of pieces, or `jsb-chorales`."""


class WatchedData(DataSection):
    """`[data]` of `anomalies`: `spikes`, which are generated, or `nab`."""


class PairsData(DataSection):
    """`[data]` of `translate`: `reversal`, which is generated, `scan-simple` or `scan-length`."""

    attention: bool = False
    """What writes also reads the outputs of what has read."""
    both_ways: bool = False
    """What reads does so from both ends."""


class GeneratedData(DataSection):
    """`[data]` of a task whose examples are drawn."""

    source: Literal["generated"] = "generated"
    held_out: Count = 512
    """Examples for the evaluations, and as many others for the test."""


class ListOpsData(GeneratedData):
    """`[data]` of `listops`."""

    read: Literal["trees", "texts"] = "trees"
    """A Tree-LSTM over the nodes, or a network that reads the text with its brackets."""
