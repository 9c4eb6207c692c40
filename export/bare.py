"""A recurrence without a task around it: vectors in, hidden states out. What benchmarks measure."""

import onnx
import torch

from carousel.contract import Contract, Port, Signature, layout_hash
from export.draft import Draft
from export.layers import Cells, add_layers, initial_row, recurrence_of, state_parts
from export.options import PLAIN, Options
from export.promises import written_so
from export.recorded import as_recorded
from export.row import join_row, lay_out, plane_of, split_row
from model.cells.lstm import LSTM

SEED = 0


def bare_lstm(input_size: int, hidden_size: int, layers: int) -> onnx.ModelProto:
    """Draw the step graph of an untrained LSTM; see `bare_model`.

    Args:
        input_size: I.
        hidden_size: H, of every layer.
        layers: How many.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return bare_model(
            [LSTM(hidden_size if layer else input_size, hidden_size) for layer in range(layers)]
        )


def bare_model(cells: Cells, options: Options = PLAIN) -> onnx.ModelProto:
    """Draw the step graph of some layers: `x [B, T, I]` to `y [B, T, H]`. It promises nothing it was not measured for.

    Args:
        cells: One a layer, each fed by the one before.
        options: How to write the graph; it is not observed.
    """
    segments = lay_out(state_parts(cells))
    inputs = (Port(name="x", dtype="float32", shape=(cells[0].input_size,)),)
    outputs = (Port(name="y", dtype="float32", shape=(cells[-1].hidden_size,)),)
    recurrence, planes = recurrence_of(cells), (plane_of(segments),)
    contract = Contract(
        **written_so(options, ()),
        task="none",
        recurrence=recurrence,
        inputs=inputs,
        outputs=outputs,
        lengths="lengths",
        planes=planes,
        segments=segments,
        initial=initial_row(cells),
        invariant=False,
        signature=Signature(
            layout=layout_hash(recurrence, inputs, outputs, planes, segments), lineage="untrained"
        ),
    ).in_oldest_format()
    draft = Draft(half=options.precision == "fp16")
    split_row(draft, segments, contract.arena)
    draft.node("Transpose", [draft.as_real("x")], ["x_TBI"], perm=[1, 0, 2])
    y_BTH = add_layers(draft, cells, [None] * len(cells), "x_TBI", contract.lengths, options)
    draft.float32_node("Identity", [y_BTH], "y")
    join_row(draft, segments, contract.arena)
    model = draft.to_model(contract)
    return as_recorded(model) if options.single_step else model
