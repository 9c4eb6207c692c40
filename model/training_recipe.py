"""The `[training]` section of a recipe."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from model.section import Count, Positive, Section, Share

Schedule = Literal["one-cycle", "cosine", "plateau", "constant"]
ClipBy = Literal["norm", "tensor", "value"]


class TrainingRecipe(Section):
    """`[training]`: how the weights are found. `docs/training.md` says more about each key."""

    updates: Count
    streams: Count
    """B: contiguous streams that are read side by side, the state carried from update to update."""
    steps: Count
    """T: characters of each stream through which the gradient of an update flows (k2)."""
    stride: Count | None = None
    """Characters of each stream that an update learns from and moves on by (k1); None: all `steps`."""
    accumulate: Count = 1
    """Parts of the streams that are computed one after the other, for the memory of one and the gradient of all."""
    learning_rate: Positive
    """The peak of the schedule."""
    schedule: Schedule = "one-cycle"
    """What the learning rate does after its rise."""
    warm_up: Share = 0.1
    """Share of the updates in which the learning rate rises; 0: it begins at its peak."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """On matrices; biases are left alone."""
    clip: Positive = 1.0
    """Largest global norm of the gradient, or what `clip_by` makes of it."""
    clip_by: ClipBy = "norm"
    """`norm`: of all tensors together; `tensor`: of each alone; `value`: each element's."""
    average: Literal["ema", "asgd"] | None = None
    """Which average of the weights is evaluated and kept, exponential or plain; None: the last ones."""
    average_decay: Share = 0.999
    """Of `ema`: what an update leaves of the average before it."""
    average_patience: Count = 5
    """Of `asgd`: evaluations without progress after which averaging begins."""
    evaluate_every: Count
    """Updates between two evaluations, each of which writes the checkpoints."""
    patience: Count | None = None
    """Evaluations without improvement after which training stops; None: it runs to its end."""
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    """Of the matrix products; `auto` is bf16 where the hardware is made for it."""
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.moves_by > self.steps:
            raise ValueError(f"expected a stride of at most steps = {self.steps}, came {self.stride}")
        if self.streams % self.accumulate:
            raise ValueError(
                f"{self.streams} streams cannot be split into accumulate = {self.accumulate} parts"
            )
        return self

    @property
    def moves_by(self) -> int:
        """The stride, said or not."""
        return self.steps if self.stride is None else self.stride
