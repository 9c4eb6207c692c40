"""A recurrence that takes one step a run, in the arena form, of products alone: what CUDA graphs can record."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from carousel.contract import METADATA_KEY, Arena, Contract, Plane, Port, Segment, Signature, layout_hash

SIZE = 4
_RNG = np.random.default_rng(7)
WEIGHTS = {
    "w": _RNG.uniform(-1, 1, (1, SIZE)).astype(np.float32),
    "u": _RNG.uniform(-1, 1, (SIZE, SIZE)).astype(np.float32),
    "v": _RNG.uniform(-1, 1, (SIZE, 1)).astype(np.float32),
}


def write_one_step(file: Path) -> Path:
    """`h <- tanh(x w + h u)`, `y = h v`, for x `[B, 1]` and h `[B, 4]`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(_model().SerializeToString())
    return file


def _contract() -> Contract:
    inputs, outputs = (Port(name="x", dtype="float32"),), (Port(name="y", dtype="float32"),)
    planes = (Plane(input="state", output="state_out", dtype="float32", size=SIZE),)
    segments = (Segment(name="layer0.hidden", start=0, size=SIZE),)
    layout = layout_hash("one step", inputs, outputs, planes, segments)
    return Contract(
        format=4,
        form="arena",
        task="none",
        recurrence="one step",
        inputs=inputs,
        outputs=outputs,
        lengths="lengths",
        planes=planes,
        segments=segments,
        max_steps=1,
        invariant=False,
        signature=Signature(layout=layout, lineage="none"),
        arena=Arena(read_rows="read_rows", write_rows="write_rows", finite="finite"),
        runs_on="cuda",
    )


def _model() -> onnx.ModelProto:
    real, whole = TensorProto.FLOAT, TensorProto.INT64
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["state", "read_rows"], ["h"]),
            helper.make_node("MatMul", ["x", "w"], ["xw"]),
            helper.make_node("MatMul", ["h", "u"], ["hu"]),
            helper.make_node("Add", ["xw", "hu"], ["sum"]),
            helper.make_node("Tanh", ["sum"], ["next"]),
            helper.make_node("MatMul", ["next", "v"], ["y"]),
            helper.make_node("Sub", ["next", "next"], ["nothing"]),
            helper.make_node("ReduceSum", ["nothing", "axis"], ["finite"], keepdims=0),
            helper.make_node("Unsqueeze", ["write_rows", "axis"], ["rows"]),
            helper.make_node("ScatterND", ["state", "rows", "next"], ["state_out"]),
        ],
        "one_step",
        [
            value("x", real, ["B", 1]),
            value("lengths", TensorProto.INT32, ["B"]),
            value("state", real, ["N", SIZE]),
            value("read_rows", whole, ["B"]),
            value("write_rows", whole, ["B"]),
        ],
        [value("y", real, ["B", 1]), value("state_out", real, ["N", SIZE]), value("finite", real, ["B"])],
        [
            numpy_helper.from_array(np.array([1]), "axis"),
            *(numpy_helper.from_array(array, name) for name, array in WEIGHTS.items()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model.metadata_props.add(key=METADATA_KEY, value=_contract().to_json())
    return model
