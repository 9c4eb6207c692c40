"""The states of a peer's sessions: what a careful person writes around ONNX Runtime in a server that keeps none.

Runs in the environments of the peers, copied beside their adapters: it knows NumPy and ONNX Runtime and nothing of ours.
"""

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort

CAPACITY = 8192
"""Sessions that a run can have; the peers drop none by themselves."""


class States:
    """One row of state a session, and the model that moves them on."""

    def __init__(self, model: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._model = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        size = next(port.shape[-1] for port in self._model.get_inputs() if port.name == "state")
        self._rows = np.zeros((CAPACITY, size), np.float32)
        self._places: dict[object, int] = {}

    def step(self, sessions: Sequence[object], x: np.ndarray) -> np.ndarray:
        """Move different sessions on by one step each. One that was never seen starts from zeros.

        Args:
            sessions: Their names.
            x: Inputs `[B, I]`, float32.

        Returns:
            Outputs `[B, H]`, float32.
        """
        rows = [self._places.setdefault(session, len(self._places)) for session in sessions]
        lengths = np.ones(len(rows), np.int32)
        feeds = {"x": x[:, None], "lengths": lengths, "state": self._rows[rows]}
        y, state = self._model.run(None, feeds)
        self._rows[rows] = state
        return np.asarray(y[:, 0])
