"""What the step graphs of all tasks have in common: the stack, its state row and the promises that follow from them."""

import onnx

from carousel.contract import Contract, Port, Provenance, Signature, layout_hash
from export.draft import Draft
from export.errors import ExportError
from export.layers import Cells, add_layers, initial_row, recurrence_of, state_parts, statistics_of
from export.options import Options
from export.promises import written_so
from export.recorded import as_recorded
from export.row import join_row, lay_out, plane_of, split_row
from export.whole import Origin
from model.checkpoint import Checkpoint
from model.tasks.step_model import StepModel
from model.zoneout import Zone, zoneout

LENGTHS = "lengths"


def step_contract(
    checkpoint: Checkpoint, inputs: tuple[Port, ...], outputs: tuple[Port, ...], options: Options
) -> Contract:
    """What a step graph promises before anything was measured: `invariant: false`.

    Args:
        checkpoint: The trained model and where it comes from.
        inputs: The task's.
        outputs: The task's.
        options: How the graph is written.

    Raises:
        ExportError: the model does not advance in steps.
    """
    model = stepping(checkpoint)
    cells = list(model.stack.by_layer())
    segments = lay_out(state_parts(cells) | _beside(model))
    recurrence, planes = recurrence_of(cells), (plane_of(segments),)
    return Contract(
        **written_so(options, statistics_of(cells, _zones(model)) if options.observe else ()),
        task=checkpoint.task,
        recurrence=recurrence,
        inputs=inputs,
        outputs=outputs,
        lengths=LENGTHS,
        planes=planes,
        segments=segments,
        initial=_initial(model, cells),
        invariant=False,
        signature=Signature(
            layout=layout_hash(recurrence, inputs, outputs, planes, segments), lineage=checkpoint.lineage
        ),
        provenance=_provenance_of(checkpoint),
    ).in_oldest_format()


def origin_of(checkpoint: Checkpoint) -> Origin:
    """What a contract says of a checkpoint that its weights do not."""
    return Origin(checkpoint.task, checkpoint.lineage, _provenance_of(checkpoint))


def _provenance_of(checkpoint: Checkpoint) -> Provenance:
    return Provenance(
        recipe=checkpoint.recipe,
        data_sha256=checkpoint.data_sha256,
        metrics=checkpoint.metrics,
        revision=checkpoint.revision,
        created=checkpoint.created,
    )


def stepping(checkpoint: Checkpoint) -> StepModel:
    """The model of a checkpoint, if it advances in steps.

    Raises:
        ExportError: it does not.
    """
    if not isinstance(checkpoint.model, StepModel):
        raise ExportError(f"task {checkpoint.task}: expected a model that advances in steps")
    return checkpoint.model


def begin(contract: Contract, options: Options) -> Draft:
    """A draft in which the state row is cut into its parts."""
    draft = Draft(half=options.precision == "fp16")
    split_row(draft, contract.segments, contract.arena)
    return draft


def add_stack(draft: Draft, model: StepModel, x_TBI: str, options: Options) -> str:
    """Add the layers from what they read to what the head reads `[B, T, H]`."""
    return add_layers(draft, list(model.stack.by_layer()), _zones(model), x_TBI, LENGTHS, options)


def finish(draft: Draft, contract: Contract) -> onnx.ModelProto:
    """Join the next state row, and close the graph."""
    join_row(draft, contract.segments, contract.arena)
    model = draft.to_model(contract)
    return as_recorded(model) if contract.max_steps == 1 else model


def _initial(model: StepModel, cells: Cells) -> tuple[float, ...] | None:
    row = initial_row(cells)
    return None if row is None else (*row, *(0.0 for size in _beside(model).values() for _ in range(size)))


def _beside(model: StepModel) -> dict[str, int]:
    """Sizes of the parts of the state that are not the stack's."""
    parts = model.initial_state(1)[model.sizes.layers :]
    return {
        f"{type(part).__name__.lower()}.{name}": value.shape[1]
        for part in parts
        for name, value in part._asdict().items()
    }


def _zones(model: StepModel) -> list[Zone | None]:
    return [zoneout(cell, model.sizes.zoneout, training=False) for cell in model.stack.by_layer()]
