"""What can be said about a model file without running it."""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.draft import IR_VERSION, OPSET

_GATES = 4


def structure_problems(model: onnx.ModelProto) -> list[str]:
    """Everything wrong with the graph, a line each; an empty list is good.

    The checker of the onnx package passes recurrent operators whose weights do not fit, and so does onnxruntime until
    the first run; therefore the shapes of these weights are held against their operator here.
    """
    versions = (model.ir_version, {entry.domain: entry.version for entry in model.opset_import})
    if versions != (IR_VERSION, {"": OPSET}):
        return [f"expected IR {IR_VERSION} and opset {OPSET}, got IR {versions[0]} and opsets {versions[1]}"]
    try:
        onnx.checker.check_model(model, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return [" ".join(str(error).split())]
    return [
        problem for node in model.graph.node if node.op_type == "LSTM" for problem in _misfits(node, inferred)
    ]


def broken_weights(model: onnx.ModelProto) -> list[str]:
    """Names of the weights that hold NaN or infinity."""
    return [
        weight.name
        for weight in model.graph.initializer
        if not np.isfinite(numpy_helper.to_array(weight)).all()
    ]


def _misfits(node: onnx.NodeProto, inferred: onnx.ModelProto) -> Iterator[str]:
    shapes = _shapes(inferred.graph)
    hidden = next(helper.get_attribute_value(a) for a in node.attribute if a.name == "hidden_size")
    x, *weights = node.input[:4]
    width = shapes[x][-1]
    expected = ((1, _GATES * hidden, width), (1, _GATES * hidden, hidden), (1, 2 * _GATES * hidden))
    for name, shape in zip(weights, expected, strict=True):
        if shapes[name] != shape:
            yield f"{name}: expected shape {list(shape)}, got {list(shapes[name])}"
    for name in node.input[5:7]:
        if shapes[name][-1] != hidden:
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
