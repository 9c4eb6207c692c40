"""What can be said about a model file without running it."""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from carousel.contract import Contract
from export.cuda import fallbacks
from export.draft import IR_VERSION, OPSET
from export.external import LARGEST_BYTES, as_inputs, weight_bytes
from export.recorded import not_recorded
from export.report import Check
from export.walk import attributes_of, nodes_of

RUNTIME_DOMAIN = "com.microsoft"
RUNTIME_OPERATORS = {"DynamicQuantizeLSTM", "MatMulNBits"}
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_STATES = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}
"""Positions of the inputs that are states."""
_PEEPHOLES = 7


def structure_checks(model: onnx.ModelProto, contract: Contract) -> tuple[Check, ...]:
    """Size, operators, shapes, numbers of the weights, and where it can run."""
    largest = max((len(weight.raw_data) for weight in model.graph.initializer), default=0)
    size = Check("size of the largest weight in bytes", largest, LARGEST_BYTES)
    told = Check("size of the weights in bytes", weight_bytes(model), None)
    if not size.passed:
        return (size,)
    problems = structure_problems(model, of_the_runtime=contract.precision.startswith("int8"))
    found = {
        "onnx checker, shape inference, weight shapes: problems": problems,
        "weights that hold NaN or infinity": broken_weights(model),
    }
    if contract.runs_on == "cuda":
        found["operators that CUDA would leave to the CPU"] = fallbacks(model)
        if contract.max_steps == 1 and not problems:
            found["operators that a CUDA graph would replay wrongly"] = not_recorded(model)
    return (
        told,
        size,
        *(Check(name, len(lines), 0, ", ".join(lines[:3])) for name, lines in found.items()),
    )


def structure_problems(model: onnx.ModelProto, *, of_the_runtime: bool = False) -> list[str]:
    """Everything wrong with the graph, a line each; an empty list is good.

    Args:
        model: Weights inside.
        of_the_runtime: Operators of ONNX Runtime's own are expected, which nobody else can check.

    The checker of the onnx package passes recurrent operators whose weights do not fit, and so does onnxruntime until
    the first run; therefore the shapes of these weights are held against their operator here.
    """
    versions = (model.ir_version, {entry.domain: entry.version for entry in model.opset_import})
    if versions != (IR_VERSION, {"": OPSET} | ({RUNTIME_DOMAIN: 1} if of_the_runtime else {})):
        return [f"expected IR {IR_VERSION} and opset {OPSET}, got IR {versions[0]} and opsets {versions[1]}"]
    foreign = [
        f"no operator {node.op_type} is known of {node.domain}"
        for node in nodes_of(model.graph)
        if node.domain and node.op_type not in RUNTIME_OPERATORS
    ]
    if foreign:
        return foreign
    model = as_inputs(model)
    try:
        onnx.checker.check_model(model, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return [" ".join(str(error).split())]
    shapes = _shapes(inferred.graph)
    return [
        problem
        for node in nodes_of(model.graph)
        if node.op_type in _GATES
        for problem in _misfits(node, shapes)
    ]


def broken_weights(model: onnx.ModelProto) -> list[str]:
    """Names of the weights that hold NaN or infinity."""
    return [
        weight.name
        for weight in model.graph.initializer
        if not np.isfinite(numpy_helper.to_array(weight)).all()
    ]


def _misfits(node: onnx.NodeProto, shapes: dict[str, tuple[int | str, ...]]) -> Iterator[str]:
    hidden = attributes_of(node)["hidden_size"]
    assert isinstance(hidden, int)
    x, *weights = node.input[:4]
    rows, width = _GATES[node.op_type] * hidden, shapes[x][-1]
    expected = [(1, rows, width), (1, rows, hidden), (1, 2 * rows)]
    if len(node.input) > _PEEPHOLES:
        weights, expected = [*weights, node.input[_PEEPHOLES]], [*expected, (1, 3 * hidden)]
    for name, shape in zip(weights, expected, strict=True):
        if name and shapes[name] != shape:
            yield f"{name}: expected shape {list(shape)}, got {list(shapes[name])}"
    for name in (node.input[k] for k in _STATES[node.op_type] if k < len(node.input)):
        if name and shapes[name][-1] != hidden:
            yield f"{name}: expected {hidden} values a row, got {shapes[name][-1]}"


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int | str, ...]]:
    """Shapes of all values `[...]`; a dimension without a number is its name."""
    shapes: dict[str, tuple[int | str, ...]] = {
        weight.name: tuple(weight.dims) for weight in graph.initializer
    }
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in dims)
    return shapes
