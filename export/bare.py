"""A recurrence without a task around it: vectors in, hidden states out. What benchmarks measure."""

import onnx
import torch

from carousel.contract import Contract, Port, Signature, layout_hash
from export.draft import Draft
from export.lstm import add_lstm, lstm_state
from export.row import join_row, lay_out, plane_of, split_row
from model.cells.lstm import LSTM

SEED = 0


def bare_lstm(input_size: int, hidden_size: int, layers: int) -> onnx.ModelProto:
    """Draw the step graph of an untrained LSTM: `x [B, T, I]` to `y [B, T, H]`. It promises nothing it was not measured for.

    Args:
        input_size: I.
        hidden_size: H, of every layer.
        layers: How many.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        cells = [LSTM(hidden_size if layer else input_size, hidden_size) for layer in range(layers)]
    segments = lay_out(lstm_state(cells))
    inputs = (Port(name="x", dtype="float32", shape=(input_size,)),)
    outputs = (Port(name="y", dtype="float32", shape=(hidden_size,)),)
    recurrence, planes = f"lstm x {layers}", (plane_of(segments),)
    contract = Contract(
        task="none",
        recurrence=recurrence,
        inputs=inputs,
        outputs=outputs,
        lengths="lengths",
        planes=planes,
        segments=segments,
        invariant=False,
        signature=Signature(
            layout=layout_hash(recurrence, inputs, outputs, planes, segments), lineage="untrained"
        ),
    )
    draft = Draft()
    split_row(draft, segments)
    draft.node("Transpose", ["x"], ["x_TBI"], perm=[1, 0, 2])
    y_TBH = add_lstm(draft, cells, "x_TBI", contract.lengths)
    draft.node("Transpose", [y_TBH], ["y"], perm=[1, 0, 2])
    join_row(draft, segments)
    return draft.to_model(contract)
