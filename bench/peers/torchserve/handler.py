"""A handler of TorchServe that keeps states, for batches with at most one step of each sequence."""

from pathlib import Path

import numpy as np
from states import States


class Recurrence:
    """Steps of sequences, as many at once as the sequence batcher hands over."""

    def initialize(self, context) -> None:
        """Read the model out of the archive."""
        self.states = States(str(Path(context.system_properties["model_dir"], "model.onnx")))

    def handle(self, data: list, context) -> list:
        """Answer inputs `[I]` of float32 with outputs `[H]`, both as bytes."""
        sequences = [context.get_sequence_id(place) for place in range(len(data))]
        rows = np.frombuffer(b"".join(row["data"] for row in data), "<f4").reshape(len(data), -1)
        return [y.tobytes() for y in self.states.step(sequences, rows)]
