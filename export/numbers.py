"""The step graph of tasks that read numbers: forecasts and the like.

Axes: B batch, T time, I all numbers read in a step, O all that are given, H hidden, C columns, h steps ahead.
"""

from math import prod

import numpy as np
import onnx

from carousel.contract import Port
from export.draft import Draft, as_float32
from export.element_types import ELEMENT_TYPES
from export.errors import ExportError
from export.options import PLAIN, Options
from export.places import add_count, add_picked, add_places
from export.row import next_of
from export.step import LENGTHS, add_stack, begin, finish, step_contract
from model.checkpoint import Checkpoint
from model.data_recipe import SeriesData
from model.recipe import AnomaliesRecipe, MusicRecipe, Recipe, SeriesRecipe
from model.tasks.forecast import Ports
from model.tasks.numbers import NumberModel

BEFORE, SEEN = "before.input", "before.seen"
"""Names of the parts of `Before` in the state row."""
_AXIS = 2
"""Of the numbers of a step."""


def numbers_model(checkpoint: Checkpoint, options: Options = PLAIN) -> onnx.ModelProto:
    """Draw the step graph of a checkpoint, both of its scales inside.

    Args:
        checkpoint: The trained model and where it comes from.
        options: How to write it.

    Raises:
        ExportError: the checkpoint is of another task, or its recurrence has no form in ONNX here.
    """
    model, (inputs, outputs) = checkpoint.model, ports_of(checkpoint)
    if not isinstance(model, NumberModel):
        raise ExportError(f"expected a checkpoint of a task that reads numbers, got {checkpoint.task!r}")
    contract = step_contract(checkpoint, inputs, outputs, options)
    draft = begin(contract, options)
    x_BTI = _add_scaled(draft, model, _add_joined(draft, inputs))
    z_BTI = _add_changes(draft, model, x_BTI, single_step=options.single_step)
    draft.node("Transpose", [z_BTI], ["x_TBI"], perm=[1, 0, 2])
    y_BTO = _add_head(draft, model, x_BTI, add_stack(draft, model, "x_TBI", options))
    _add_split(draft, outputs, y_BTO)
    return finish(draft, contract)


def ports_of(checkpoint: Checkpoint) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """The inputs and outputs of a checkpoint's task, in the order in which the model has their numbers."""
    recipe, names = Recipe.from_document(checkpoint.recipe), checkpoint.vocabulary
    if isinstance(recipe, SeriesRecipe):
        return _of_series(recipe.data)
    if isinstance(recipe, AnomaliesRecipe):
        value, following = "in standard deviations of the series", "one step ahead, likewise"
        return (_port("values", names, meaning=value),), (
            _port("forecast", names, meaning=following, feeds="values"),
        )
    if isinstance(recipe, MusicRecipe):
        sounding, odds = "1 where a key sounds", "log odds of sounding in the next frame"
        return (_port("keys", names, meaning=sounding),), (_port("logits", names, meaning=odds),)
    return (_port("terms", names),), (_port("sums", ("sum",)),)


def _of_series(data: SeriesData) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    reach, recursive = Ports(data).reach, data.recursive
    ahead = () if recursive else (reach,)
    inputs = [_port("values", data.values, meaning="now")]
    forecast = [
        _port("forecast", data.values, ahead, "one step ahead" if recursive else f"1 to {reach} steps ahead")
    ]
    if data.past:
        inputs.append(_port("past", data.past, meaning="now"))
    if data.known:
        inputs.append(_port("known", data.known, ahead, forecast[0].meaning))
    if recursive:
        forecast = [forecast[0].model_copy(update={"feeds": "values"})]
        if data.past:
            forecast.append(_port("past_forecast", data.past, meaning="one step ahead", feeds="past"))
    return tuple(inputs), tuple(forecast)


def _port(
    name: str,
    columns: tuple[str, ...],
    ahead: tuple[int, ...] = (),
    meaning: str = "",
    feeds: str | None = None,
) -> Port:
    shape = (*ahead, len(columns))
    return Port(name=name, dtype="float32", shape=shape, meaning=meaning, vocabulary=columns, feeds=feeds)


def _add_joined(draft: Draft, ports: tuple[Port, ...]) -> str:
    """The numbers of all ports side by side `[B, T, I]`."""
    flat = []
    for port in ports:
        flat.append(port.name)
        if len(port.shape) > 1:
            flat[-1] = f"{port.name}.flat"
            shape = draft.weight(f"{port.name}.size", np.array([0, 0, port.size]))
            draft.node("Reshape", [port.name, shape], [flat[-1]])
    if len(flat) == 1:
        return flat[0]
    draft.node("Concat", flat, ["input_BTI"], axis=_AXIS)
    return "input_BTI"


def _add_scaled(draft: Draft, model: NumberModel, input_BTI: str) -> str:
    draft.node("Sub", [input_BTI, draft.weight("center_in", as_float32(model.center_in))], ["centered_BTI"])
    draft.node("Div", ["centered_BTI", draft.weight("scale_in", as_float32(model.scale_in))], ["x_BTI"])
    return "x_BTI"


def _add_changes(draft: Draft, model: NumberModel, x_BTI: str, *, single_step: bool) -> str:
    """What the stack reads; the parts of `Before` that come next are left, too."""
    n, rest = model.changes, len(model.center_in) - model.changes
    if not n:
        return x_BTI
    first, step = draft.weight("first", np.array([0])), draft.weight("step_axis", np.array([1]))
    parts = ["now_BTn", "rest_BTI"] if rest else ["now_BTn"]
    draft.node(
        "Split", [x_BTI, draft.weight("changes", np.array([n, rest][: len(parts)]))], parts, axis=_AXIS
    )
    # Where nothing was seen before, the first step is its own predecessor: no change. Both products are exact.
    draft.node("Gather", ["now_BTn", first], ["first_B1n"], axis=1)
    draft.node("Unsqueeze", [SEEN, step], ["seen_B11"])
    draft.node("Unsqueeze", [BEFORE, step], ["before_B1n"])
    draft.node("Sub", [draft.weight("one", np.float32(1)), "seen_B11"], ["unseen_B11"])
    draft.node("Mul", ["seen_B11", "before_B1n"], ["known_B1n"])
    draft.node("Mul", ["unseen_B11", "first_B1n"], ["unknown_B1n"])
    draft.node("Add", ["known_B1n", "unknown_B1n"], ["start_B1n"])
    draft.node("Cast", [LENGTHS], ["lengths_int64"], to=ELEMENT_TYPES["int64"])
    draft.node("Unsqueeze", ["lengths_int64", step], ["lengths_B1"])
    if single_step:
        draft.node("Sub", ["now_BTn", "start_B1n"], ["changes_BTn"])
        draft.node("Squeeze", ["now_BTn", step], [next_of(BEFORE)])
    else:
        draft.node("Concat", ["start_B1n", "now_BTn"], ["all_BTn"], axis=1)
        draft.node("Slice", ["all_BTn", first, draft.weight("last", np.array([-1])), step], ["earlier_BTn"])
        draft.node("Sub", ["now_BTn", "earlier_BTn"], ["changes_BTn"])
        # In `all` everything lies a step later: what a row's length counts there is its last step.
        rows = add_places(draft, LENGTHS, 0, 1, "change_rows_B")
        steps = add_count(draft, add_places(draft, "all_BTn", 1, 3, "all_T"))
        draft.node("Mul", [rows, steps], ["before_row_B"])
        draft.node("Add", ["before_row_B", "lengths_int64"], ["last_now_B"])
        add_picked(draft, "all_BTn", n, "last_now_B", next_of(BEFORE))
    draft.node("Cast", ["lengths_B1"], ["any_B1"], to=ELEMENT_TYPES["bool"])
    draft.node("Cast", ["any_B1"], [next_of(SEEN)], to=draft.real)
    if not rest:
        return "changes_BTn"
    draft.node("Concat", ["changes_BTn", "rest_BTI"], ["z_BTI"], axis=_AXIS)
    return "z_BTI"


def _add_head(draft: Draft, model: NumberModel, x_BTI: str, output_BTH: str) -> str:
    weight = draft.weight("head.weight_HO", as_float32(model.head.weight).T)
    draft.node("MatMul", [output_BTH, weight], ["product_BTO"])
    draft.node("Add", ["product_BTO", draft.weight("head.bias", as_float32(model.head.bias))], ["head_BTO"])
    y_BTO = "head_BTO"
    if model.follows:
        places = draft.weight("follows", np.array(model.follows))
        draft.node("Gather", [x_BTI, places], ["last_BTO"], axis=_AXIS)
        draft.node("Add", [y_BTO, "last_BTO"], ["y_BTO"])
        y_BTO = "y_BTO"
    draft.node("Mul", [y_BTO, draft.weight("scale_out", as_float32(model.scale_out))], ["scaled_BTO"])
    draft.node(
        "Add", ["scaled_BTO", draft.weight("center_out", as_float32(model.center_out))], ["output_BTO"]
    )
    return "output_BTO"


def _add_split(draft: Draft, ports: tuple[Port, ...], y_BTO: str) -> None:
    """Cut the numbers of a step into the ports."""
    flat = [f"{port.name}.flat" for port in ports]
    sizes = draft.weight("port_sizes", np.array([prod(port.shape) for port in ports]))
    draft.node("Split", [y_BTO, sizes], flat, axis=_AXIS)
    for port, values in zip(ports, flat, strict=True):
        shape = draft.weight(f"{port.name}.shape", np.array([0, 0, *port.shape]))
        draft.node("Reshape", [values, shape], [port.name])
