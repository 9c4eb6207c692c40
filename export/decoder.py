"""The step graph of a decoder, with attention or without.

Axes: B batch, T time, M places of the memory, W width of a place, H hidden.
"""

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from export.draft import Draft
from export.encoder_decoder import LOGITS, MEMORY, TOKENS, Pair, decoder_contract
from export.layers import add_layers
from export.modules import add_module
from export.options import PLAIN
from export.row import join_row, split_row
from export.whole import LENGTHS
from model.attention import LuongAttention, Memory
from model.zoneout import zoneout


def decoder_model(pair: Pair) -> onnx.ModelProto:
    """Draw the step graph: the symbol before in, logits of the symbol to be written out.

    With attention it has a read-only plane, the memory `[B, M (W + 1)]`: for each place of the source the encoder's
    output and then 1, or zeros where the source had ended.

    Raises:
        ExportError: a part of it has no form in ONNX here.
    """
    contract, draft, model = decoder_contract(pair), Draft(), pair.model
    cells = list(model.decoder.by_layer())
    zones = [zoneout(cell, model.decoder.conditions.zoneout, training=False) for cell in cells]
    split_row(draft, contract.segments)
    draft.node("Transpose", [TOKENS], ["tokens_TB"], perm=[1, 0])
    token = torch.zeros((), dtype=torch.int64)
    embedded_TBE = add_module(draft, model.target, "embedding", ["tokens_TB"], [token], axes=2)
    read_BTH = add_layers(draft, cells, zones, embedded_TBE, LENGTHS, PLAIN)
    if model.attention is not None:
        read_BTH = _add_attention(draft, model.attention, pair, read_BTH)
    logits_BTV = add_module(draft, model.head, "head", [read_BTH], [torch.zeros(model.decoder.width)], axes=2)
    draft.node("Identity", [logits_BTV], [LOGITS])
    join_row(draft, contract.segments)
    return draft.to_model(contract)


def _add_attention(draft: Draft, attention: LuongAttention, pair: Pair, hidden_BTH: str) -> str:
    """Add what the head reads `[B, T, H]`.

    In a Scan, a step at a time: the products of one step have the same shape however steps are cut into chunks, and
    so the same bits.
    """
    M, W, H = pair.max_source, pair.model.encoder.width, pair.model.decoder.width
    shape = draft.weight("attention.shape", np.array([0, M, W + 1]))
    sizes = draft.weight("attention.sizes", np.array([W, 1]))
    draft.node("Reshape", [MEMORY, shape], ["attention.places_BMw"])
    memory = ["attention.outputs_BMW", "attention.real_BM1"]
    draft.node("Split", ["attention.places_BMw", sizes], memory, axis=2)
    inside, step = draft.inner(), "attention.hidden_BH"
    shapes = [torch.zeros(H), torch.zeros(M, W), torch.zeros(M, 1)]
    read = add_module(inside, _OneStep(attention), "attention.step", [step, *memory], shapes, axes=1)
    draft.node(
        "Scan",
        [hidden_BTH],
        ["attention.read_BTH"],
        num_scan_inputs=1,
        scan_input_axes=[1],
        scan_output_axes=[1],
        body=inside.to_body("attention.step", [step], [read]),
    )
    return "attention.read_BTH"


class _OneStep(nn.Module):
    """Attention of one step `[B, H]`, as a Scan has it."""

    def __init__(self, attention: LuongAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, hidden_BH: Tensor, outputs_BMW: Tensor, real_BM1: Tensor) -> Tensor:
        memory = Memory(outputs_BMW, real_BM1.squeeze(2))
        read_B1H: Tensor = self.attention(hidden_BH.unsqueeze(1), memory)
        return read_B1H.squeeze(1)
