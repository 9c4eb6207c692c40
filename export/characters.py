"""The step graph of the character task: token in, logits of the next token out."""

import onnx

from carousel.contract import Contract, Port, Provenance, Signature, layout_hash
from export.draft import Draft, as_float32
from export.errors import ExportError
from export.layers import add_layers, initial_row, recurrence_of, state_parts, statistics_of
from export.options import PLAIN, Options
from export.promises import written_so
from export.row import join_row, lay_out, plane_of, split_row
from model.checkpoint import Checkpoint
from model.tasks.characters import CharacterModel
from model.zoneout import Zone, zoneout

TOKENS = "tokens"
LENGTHS = "lengths"
LOGITS = "logits"


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
    cells = list(model.stack.by_layer())
    draft = Draft(half=options.precision == "fp16")
    split_row(draft, contract.segments, contract.arena)
    embedded_TBE = _add_embedding(draft, model)
    output_BTH = add_layers(draft, cells, _zones(model), embedded_TBE, LENGTHS, options)
    _add_head(draft, model, output_BTH)
    join_row(draft, contract.segments, contract.arena)
    return draft.to_model(contract)


def characters_contract(checkpoint: Checkpoint, options: Options = PLAIN) -> Contract:
    """What the graph promises before anything was measured.

    Raises:
        ExportError: the checkpoint is of another task.
    """
    if checkpoint.task != "characters":
        raise ExportError(f"expected a checkpoint of the task 'characters', got {checkpoint.task!r}")
    cells = list(checkpoint.model.stack.by_layer())
    segments = lay_out(state_parts(cells))
    symbols = checkpoint.vocabulary
    inputs = (
        Port(name=TOKENS, dtype="int64", meaning="token", vocabulary=symbols, unknown=checkpoint.unknown),
    )
    outputs = (
        Port(name=LOGITS, dtype="float32", shape=(len(symbols),), meaning="logits", vocabulary=symbols),
    )
    recurrence = recurrence_of(cells)
    planes = (plane_of(segments),)
    return Contract(
        **written_so(options, statistics_of(cells, _zones(checkpoint.model)) if options.observe else ()),
        task=checkpoint.task,
        recurrence=recurrence,
        inputs=inputs,
        outputs=outputs,
        lengths=LENGTHS,
        planes=planes,
        segments=segments,
        initial=initial_row(cells),
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


def _zones(model: CharacterModel) -> list[Zone | None]:
    return [zoneout(cell, model.sizes.zoneout, training=False) for cell in model.stack.by_layer()]


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
