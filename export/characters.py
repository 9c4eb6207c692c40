"""The step graph of the character task: token in, logits of the next token out."""

from typing import cast

import onnx

from carousel.contract import Contract, Port, Provenance, Signature, layout_hash
from export.draft import Draft, as_float32
from export.errors import ExportError
from export.lstm import add_lstm, lstm_state
from export.row import join_row, lay_out, plane_of, split_row
from model.cells.lstm import LSTM
from model.checkpoint import Checkpoint
from model.tasks.characters import CharacterModel

TOKENS = "tokens"
LENGTHS = "lengths"
LOGITS = "logits"


def characters_model(checkpoint: Checkpoint) -> onnx.ModelProto:
    """Draw the step graph of a checkpoint: `tokens [B, T]`, `lengths [B]`, `state [B, S]` to `logits [B, T, V]`, `state_out [B, S]`.

    Its contract says `invariant: false`; only a measurement may change that.

    Raises:
        ExportError: the checkpoint is of another task or holds another recurrence.
    """
    contract = characters_contract(checkpoint)
    draft = Draft()
    split_row(draft, contract.segments)
    embedded_TBE = _add_embedding(draft, checkpoint.model)
    output_TBH = add_lstm(draft, lstm_cells(checkpoint), embedded_TBE, LENGTHS)
    _add_head(draft, checkpoint.model, output_TBH)
    join_row(draft, contract.segments)
    return draft.to_model(contract)


def characters_contract(checkpoint: Checkpoint) -> Contract:
    """What the graph promises before anything was measured."""
    cells = lstm_cells(checkpoint)
    segments = lay_out(lstm_state(cells))
    symbols = checkpoint.vocabulary
    inputs = (
        Port(name=TOKENS, dtype="int64", meaning="token", vocabulary=symbols, unknown=checkpoint.unknown),
    )
    outputs = (
        Port(name=LOGITS, dtype="float32", shape=(len(symbols),), meaning="logits", vocabulary=symbols),
    )
    recurrence = f"lstm x {len(cells)}"
    planes = (plane_of(segments),)
    return Contract(
        task=checkpoint.task,
        recurrence=recurrence,
        inputs=inputs,
        outputs=outputs,
        lengths=LENGTHS,
        planes=planes,
        segments=segments,
        invariant=False,
        signature=Signature(
            layout=layout_hash(recurrence, inputs, outputs, planes, segments), lineage=checkpoint.lineage
        ),
        provenance=Provenance(
            recipe=checkpoint.recipe,
            data_sha256=checkpoint.data_sha256,
            metrics=checkpoint.metrics,
            revision=checkpoint.revision,
            created=checkpoint.created,
        ),
    )


def lstm_cells(checkpoint: Checkpoint) -> list[LSTM]:
    """The layers of the checkpoint's model, first to last.

    Raises:
        ExportError: the checkpoint is of another task or holds another recurrence.
    """
    if checkpoint.task != "characters":
        raise ExportError(f"expected a checkpoint of the task 'characters', got {checkpoint.task!r}")
    cells = list(checkpoint.model.stack.cells)
    foreign = [type(cell).__name__ for cell in cells if not isinstance(cell, LSTM)]
    if foreign:
        raise ExportError(f"expected LSTM layers, got {foreign[0]}")
    return cast("list[LSTM]", cells)


def _add_embedding(draft: Draft, model: CharacterModel) -> str:
    table = draft.weight("embedding", as_float32(model.embedding.weight))
    # Time comes first from here on: turning the tokens is cheaper than turning their vectors.
    draft.node("Transpose", [TOKENS], ["tokens_TB"], perm=[1, 0])
    draft.node("Gather", [table, "tokens_TB"], ["embedded_TBE"], axis=0)
    return "embedded_TBE"


def _add_head(draft: Draft, model: CharacterModel, output_TBH: str) -> None:
    weight = draft.weight("head.weight_HV", as_float32(model.head.weight).T)
    bias = draft.weight("head.bias", as_float32(model.head.bias))
    draft.node("Transpose", [output_TBH], ["output_BTH"], perm=[1, 0, 2])
    draft.node("MatMul", ["output_BTH", weight], ["product_BTV"])
    draft.node("Add", ["product_BTV", bias], [LOGITS])
