"""The one place where gates change their order."""

import numpy as np
from numpy.typing import NDArray


def lstm_gates_to_onnx(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reorder the four gate blocks of an LSTM weight from ours to the operator's.

    Args:
        weight: `[4H, ...]`, blocks in the order i, f, g, o (input, forget, candidate, output), as in PyTorch.

    Returns:
        `[4H, ...]`, blocks in the order i, o, f, c; the candidate g is called c there.

    Source: ONNX operator LSTM, inputs W, R and B.
    """
    i, f, g, o = np.split(weight, 4)
    return np.concatenate([i, o, f, g])
