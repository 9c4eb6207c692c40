"""The graphs that touch an arena `[N, S]` beside the model's own: copies of rows, and whether rows are finite.

Written as bytes of onnx.proto (ONNX IR specification, version 10; operators of opset 20), since what serves goes
without the `onnx` package. Each is a chain of nodes of one input and output more, so a few fields of it are enough.
"""

from collections.abc import Sequence

import numpy as np

ARENA = "arena"
ARENA_OUT = "arena_out"
ROWS = "rows"
STATES = "states"
SUMS = "sums"

_IR, _OPSET = 10, 20
_ELEMENTS = {
    "int8": 3,
    "int32": 6,
    "int64": 7,
    "uint8": 2,
    "float32": 1,
    "float16": 10,
    "float64": 11,
    "bool": 9,
}
"""TensorProto.DataType"""
_INT = 2
"""AttributeProto.AttributeType.INT"""


def gather_graph(dtype: str, size: int) -> bytes:
    """`states [n, S]`: the rows `[n]` int64 of the arena."""
    return _model(
        [_node("Gather", [ARENA, ROWS], STATES)],
        [_value(ARENA, dtype, "N", size), _value(ROWS, "int64", "n")],
        _value(STATES, dtype, "n", size),
    )


def scatter_graph(dtype: str, size: int) -> bytes:
    """`arena_out [N, S]`: the arena with `states [n, S]` in the rows `[n, 1]` int64. In place, if bound to one buffer."""
    return _model(
        [_node("ScatterND", [ARENA, ROWS, STATES], ARENA_OUT)],
        [_value(ARENA, dtype, "N", size), _value(ROWS, "int64", "n", 1), _value(STATES, dtype, "n", size)],
        _value(ARENA_OUT, dtype, "N", size),
    )


def check_graph(dtype: str, size: int) -> bytes:
    """`sums [n]`: 0 for each of the rows `[n]` int64 whose numbers are finite, NaN for the others.

    A number minus itself is 0 if it is finite and else NaN; what leaves the device is a number a row and not the row.
    """
    axis = _field(1, 1) + _field(2, _ELEMENTS["int64"]) + _field(8, "axis") + _field(9, np.int64(1).tobytes())
    keepdims = _field(1, "keepdims") + _field(3, 0) + _field(20, _INT)
    return _model(
        [
            _node("Gather", [ARENA, ROWS], STATES),
            _node("Sub", [STATES, STATES], "nothing"),
            _node("ReduceSum", ["nothing", "axis"], SUMS) + _field(5, keepdims),
        ],
        [_value(ARENA, dtype, "N", size), _value(ROWS, "int64", "n")],
        _value(SUMS, dtype, "n"),
        axis,
    )


def _model(nodes: Sequence[bytes], inputs: Sequence[bytes], output: bytes, *weights: bytes) -> bytes:
    """ModelProto: ir_version 1, graph 7, opset_import 8."""
    graph = b"".join(
        [
            *(_field(1, node) for node in nodes),
            _field(2, "rows"),
            *(_field(5, weight) for weight in weights),
            *(_field(11, value) for value in inputs),
            _field(12, output),
        ]
    )
    return _field(1, _IR) + _field(7, graph) + _field(8, _field(2, _OPSET))


def _node(kind: str, inputs: Sequence[str], output: str) -> bytes:
    """NodeProto: input 1, output 2, name 3, op_type 4."""
    return (
        b"".join(_field(1, name) for name in inputs) + _field(2, output) + _field(3, output) + _field(4, kind)
    )


def _value(name: str, dtype: str, *shape: int | str) -> bytes:
    """ValueInfoProto: name 1, type 2; of the type, the tensor 1: element type 1, shape 2."""
    sizes = (_field(1, _field(1 if isinstance(size, int) else 2, size)) for size in shape)
    tensor = _field(1, _ELEMENTS[dtype]) + _field(2, b"".join(sizes))
    return _field(1, name) + _field(2, _field(1, tensor))


def _field(number: int, value: int | str | bytes) -> bytes:
    """One field as protobuf writes it: a varint, or bytes after their length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the top bit says that more follow."""
    low = value & 0x7F
    return bytes([low]) if value < 0x80 else bytes([low | 0x80]) + _varint(value >> 7)
