"""The step graph of tasks that read symbols: token in, logits out, of the next token where a text goes on."""

import onnx

from carousel.contract import Contract, Port
from export.draft import Draft, as_float32
from export.errors import ExportError
from export.options import PLAIN, Options
from export.step import add_stack, begin, finish, step_contract
from model.checkpoint import Checkpoint
from model.tasks.characters import CharacterModel

TOKENS = "tokens"
LOGITS = "logits"
_GOES_ON = ("characters", "words", "counting")
"""Tasks whose outputs are about the next input."""
_HAS_UNKNOWN = ("characters", "words")


def characters_model(checkpoint: Checkpoint, options: Options = PLAIN) -> onnx.ModelProto:
    """Draw the step graph of a checkpoint: `tokens [B, T]`, `lengths [B]`, `state [B, S]` to `logits [B, T, V]`, `state_out [B, S]`.

    It is the model in evaluation: dropout does nothing, zoneout is its expectation. Its contract says
    `invariant: false`; only a measurement may change that.

    Args:
        checkpoint: The trained model and where it comes from.
        options: How to write it; weights of 8 bits are made of a finished graph, see `export.quantise`.

    Raises:
        ExportError: the checkpoint is of another task, or its recurrence has no form in ONNX here.
    """
    contract, model = characters_contract(checkpoint, options), checkpoint.model
    assert isinstance(model, CharacterModel)
    draft = begin(contract, options)
    output_BTH = add_stack(draft, model, _add_embedding(draft, model), options)
    _add_head(draft, model, output_BTH)
    return finish(draft, contract)


def characters_contract(checkpoint: Checkpoint, options: Options = PLAIN) -> Contract:
    """What the graph promises before anything was measured.

    Raises:
        ExportError: the checkpoint is of another task.
    """
    task, symbols = checkpoint.task, checkpoint.vocabulary
    if not isinstance(checkpoint.model, CharacterModel):
        raise ExportError(f"expected a checkpoint of a task that reads symbols, got {task!r}")
    unknown = checkpoint.unknown if task in _HAS_UNKNOWN else None
    inputs = (Port(name=TOKENS, dtype="int64", meaning="token", vocabulary=symbols, unknown=unknown),)
    outputs = (
        Port(
            name=LOGITS,
            dtype="float32",
            shape=(len(symbols),),
            meaning="logits",
            vocabulary=symbols,
            feeds=TOKENS if task in _GOES_ON else None,
        ),
    )
    return step_contract(checkpoint, inputs, outputs, options)


def _add_embedding(draft: Draft, model: CharacterModel) -> str:
    table = draft.weight("embedding", as_float32(model.embedding.weight))
    # Time comes first from here on: turning the tokens is cheaper than turning their vectors.
    draft.node("Transpose", [TOKENS], ["tokens_TB"], perm=[1, 0])
    draft.node("Gather", [table, "tokens_TB"], ["embedded_TBE"], axis=0)
    return "embedded_TBE"


def _add_head(draft: Draft, model: CharacterModel, output_BTH: str) -> None:
    weight = draft.weight("head.weight_HV", as_float32(model.head.weight).T)
    bias = draft.weight("head.bias", as_float32(model.head.bias))
    draft.node("MatMul", [output_BTH, weight], ["product_BTV"])
    draft.float32_node("Add", ["product_BTV", bias], LOGITS)
