"""The `[model]` section of a recipe: the network, and what acts on it while it learns.

`docs/training.md` says more about each key.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from model.section import Positive, Section, Share, Size


class PlainCell(Section):
    """`cell = "lstm"` and the other cells that have no options."""

    kind: Literal["lstm", "peephole", "coupled", "highway-time", "highway-depth", "multiplicative-brief"] = (
        "lstm"
    )


class ProjectedCell(Section):
    """`cell = {kind = "projected", projection = 64}`."""

    kind: Literal["projected"]
    projection: Size
    """What the layer hands on; `hidden` is then the number of its cells."""
    cell_clip: Positive | None = None
    projection_clip: Positive | None = None


class MultiplicativeCell(Section):
    """`cell = "multiplicative"`."""

    kind: Literal["multiplicative"]
    intermediate: Size | None = None
    """None: as many as `hidden`."""


class GRUCell(Section):
    """`cell = "gru"`."""

    kind: Literal["gru"]
    reset_after: bool = True


class RNNCell(Section):
    """`cell = "rnn"`."""

    kind: Literal["rnn"]
    nonlinearity: Literal["tanh", "relu"] = "tanh"


def _spelt_out(short: str) -> Any:
    """A validator: one value alone stands for a table with this key."""
    return BeforeValidator(lambda value: value if isinstance(value, dict | Section) else {short: value})


CellRecipe = Annotated[
    Annotated[
        PlainCell | ProjectedCell | MultiplicativeCell | GRUCell | RNNCell, Field(discriminator="kind")
    ],
    _spelt_out("kind"),
]


class DropoutRecipe(Section):
    """`[model.dropout]`: shares of what is dropped while training; the rest is scaled up by 1 / (1 - share)."""

    embedding: Share = 0.0
    """Of the symbols: those drawn are zero wherever they occur in a chunk."""
    input: Share = 0.0
    """Of what the first layer reads."""
    between: Share = 0.0
    """Of what every other layer reads; `dropout = 0.5` is short for this one."""
    output: Share = 0.0
    """Of what the head reads."""
    hidden: Share = 0.0
    """Of the hidden state that the gates see, the same units in all steps of a chunk; what is carried stays whole."""
    weight: Share = 0.0
    """Of the single weights of the recurrent matrices, the same in all steps of a chunk."""
    locked: bool = False
    """`input`, `between` and `output` drop the same units in all steps of a chunk, and not others in each."""
    untied: bool = False
    """What is dropped before a layer and on its hidden state is drawn for each gate alone; `locked` is implied."""


class ZoneoutRecipe(Section):
    """`[model.zoneout]`: shares of the state's units that stay what they were for a step."""

    hidden: Share = 0.0
    cell: Share = 0.0


class InitialiseRecipe(Section):
    """`[model.initialise]`: where the weights start, if not where a new cell starts."""

    recurrent: Literal["orthogonal", "xavier"] = "orthogonal"
    """What the blocks of the recurrent matrix are, a gate each."""
    scale: Positive = 1.0
    """What those blocks are multiplied by."""
    small_candidate: bool = False
    """Both blocks of the candidate are normal with the variance 1 / hidden."""
    forget_bias: float | None = None
    """None: what a new cell has, which is 1 where there is a forget gate."""
    chrono: Annotated[int, Field(ge=3)] | None = None
    """T_max: biases for memories of 1 to T_max steps."""

    @model_validator(mode="after")
    def _one_bias(self) -> Self:
        if self.forget_bias is not None and self.chrono is not None:
            raise ValueError("expected forget_bias or chrono, came both")
        return self


class ModelRecipe(Section):
    """`[model]`: the sizes of the network, its recurrence and its regularisers."""

    embedding: Size | None = None
    """Numbers that a symbol becomes; None: of tasks that read numbers, which have none."""
    hidden: Size
    layers: Size
    cell: CellRecipe = PlainCell()
    share: bool = False
    """Layers that read equally many numbers are one and the same: from the second on, and the first if it can."""
    tie: bool = False
    """The head's matrix is the embedding's."""
    dropout: Annotated[DropoutRecipe, _spelt_out("between")] = DropoutRecipe()
    zoneout: ZoneoutRecipe = ZoneoutRecipe()
    activation_penalty: Annotated[float, Field(ge=0)] = 0.0
    """Alpha: what is added to the loss for each unit of the mean square of what the head reads."""
    temporal_penalty: Annotated[float, Field(ge=0)] = 0.0
    """Beta: likewise for the mean square of the change of the last layer's output from step to step."""
    initialise: InitialiseRecipe = InitialiseRecipe()
    checkpointing: bool = False
    """Keep the activations of about sqrt(T) of a chunk's T steps, and compute the others again for the gradient."""
