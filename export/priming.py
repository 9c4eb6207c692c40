"""The priming graph of an encoder: a source in, what a session of the decoder starts with out.

Axes: B batch, T time, M places of the memory, W width of a place.
"""

import numpy as np
import onnx
import torch
from torch import nn

from export.draft import Draft
from export.element_types import ELEMENT_TYPES
from export.encoder_decoder import MEMORY, SOURCE, Pair, priming_contract
from export.modules import add_module
from export.options import PLAIN
from export.readers import Read, add_reader
from export.row import STATE
from export.whole import LENGTHS
from model.encoder_decoder import EncoderDecoder


def priming_model(pair: Pair) -> onnx.ModelProto:
    """Draw the whole-input graph: a source in, the planes of the step graph out, each under its name.

    Raises:
        ExportError: a part of it has no form in ONNX here.
    """
    contract, draft, model = priming_contract(pair), Draft(), pair.model
    draft.node("Transpose", [SOURCE], ["source_TB"], perm=[1, 0])
    token = torch.zeros((), dtype=torch.int64)
    embedded_TBE = add_module(draft, model.source, "embedding", ["source_TB"], [token], axes=2)
    read = add_reader(draft, model.encoder, embedded_TBE, LENGTHS, PLAIN)
    _add_state(draft, model, read)
    if model.attention is not None:
        _add_memory(draft, pair, read.outputs_BTH)
    return draft.to_model(contract)


def _add_state(draft: Draft, model: EncoderDecoder, read: Read) -> None:
    """Join the decoder's state row from where the encoder's readers ended."""
    parts, bridges = [], iter(model.bridges)
    for layer, readers in enumerate(read.ends):
        for part in readers[0]:
            ends = [reader[part] for reader in readers]
            if not model.bridges:
                parts.extend(ends)
                continue
            name, bridge = f"layer{layer}.{part}.both", next(bridges)
            assert isinstance(bridge, nn.Linear)  # what ModuleList cannot say of its members
            draft.node("Concat", ends, [name], axis=1)
            width = torch.zeros(bridge.in_features)
            parts.append(add_module(draft, bridge, f"layer{layer}.{part}.bridge", [name], [width], axes=1))
    draft.node("Concat", parts, [STATE], axis=1)


def _add_memory(draft: Draft, pair: Pair, outputs_BTW: str) -> None:
    """Add the memory `[B, M (W + 1)]`: outputs and a 1 for every real step, zeros for all others."""
    M, width = pair.max_source, pair.model.encoder.width + 1
    for name, values in {
        "zero": np.array(0),
        "one": np.array(1),
        "nothing": np.array(0, np.float32),
        "column": np.array([1]),
        "last": np.array([-1]),
        "before": np.array([0]),
        "places": np.array([M]),
        "shape": np.array([0, M * width]),
    }.items():
        draft.weight(f"memory.{name}", values)
    draft.node("Shape", [SOURCE], ["memory.T_1"], start=1, end=2)
    draft.node("Squeeze", ["memory.T_1"], ["memory.T"])
    draft.node("Range", ["memory.zero", "memory.T", "memory.one"], ["memory.t_T"])
    draft.node("Cast", [LENGTHS], ["memory.lengths64_B"], to=ELEMENT_TYPES["int64"])
    draft.node("Unsqueeze", ["memory.lengths64_B", "memory.column"], ["memory.lengths_B1"])
    draft.node("Less", ["memory.t_T", "memory.lengths_B1"], ["memory.is_real_BT"])
    draft.node("Unsqueeze", ["memory.is_real_BT", "memory.last"], ["memory.is_real_BT1"])
    # Chosen, not multiplied: beyond a row's end there may be anything.
    draft.node("Where", ["memory.is_real_BT1", outputs_BTW, "memory.nothing"], ["memory.outputs_BTW"])
    draft.node("Cast", ["memory.is_real_BT1"], ["memory.real_BT1"], to=ELEMENT_TYPES["float32"])
    draft.node("Concat", ["memory.outputs_BTW", "memory.real_BT1"], ["memory.both_BTw"], axis=2)
    draft.node("Sub", ["memory.places", "memory.T_1"], ["memory.missing_1"])
    draft.node("Concat", ["memory.before", "memory.missing_1"], ["memory.pads_2"], axis=0)
    padded = ["memory.both_BTw", "memory.pads_2", "memory.nothing", "memory.column"]
    draft.node("Pad", padded, ["memory.places_BMw"])
    draft.node("Reshape", ["memory.places_BMw", "memory.shape"], [MEMORY])
