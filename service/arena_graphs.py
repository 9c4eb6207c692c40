"""The graphs that touch an arena `[N, S]` beside the model's own: copies of rows.

Written as bytes of onnx.proto (ONNX IR specification, version 10; operators of opset 20), since what serves goes
without the `onnx` package. Each is one node, so a few fields of it are enough.
"""

from collections.abc import Sequence

ARENA = "arena"
ARENA_OUT = "arena_out"
ROWS = "rows"
STATES = "states"

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


def gather_graph(dtype: str, size: int) -> bytes:
    """`states [n, S]`: the rows `[n]` int64 of the arena."""
    return _model(
        _node("Gather", [ARENA, ROWS], STATES),
        [_value(ARENA, dtype, "N", size), _value(ROWS, "int64", "n")],
        _value(STATES, dtype, "n", size),
    )


def scatter_graph(dtype: str, size: int) -> bytes:
    """`arena_out [N, S]`: the arena with `states [n, S]` in the rows `[n, 1]` int64. In place, if bound to one buffer."""
    return _model(
        _node("ScatterND", [ARENA, ROWS, STATES], ARENA_OUT),
        [_value(ARENA, dtype, "N", size), _value(ROWS, "int64", "n", 1), _value(STATES, dtype, "n", size)],
        _value(ARENA_OUT, dtype, "N", size),
    )


def _model(node: bytes, inputs: Sequence[bytes], output: bytes) -> bytes:
    """ModelProto: ir_version 1, graph 7, opset_import 8."""
    values = b"".join(_field(11, value) for value in inputs)
    graph = _field(1, node) + _field(2, "rows") + values + _field(12, output)
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
