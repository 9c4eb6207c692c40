"""What a CUDA graph replays rightly in any ONNX Runtime: kernels that are handed sizes and addresses by value.

A kernel that copies them from the host's memory in each run has that copy recorded, and a replay copies whatever is
there by then. `Split` and `Concat` are such kernels where their parts differ in size or are many: newer releases keep
that memory for them, older ones give it away. `GatherND` and the recurrent operators are others. Loops are driven from
the host, and what reads shapes runs there.

Source: split.cc, concat.cc and gather_nd.cc of ONNX Runtime's CUDA provider, its pull requests 32120, 32121 and 32410.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.external import as_inputs
from export.walk import attributes_of, nodes_of

NEVER = frozenset(
    [
        "GatherND",
        "GRU",
        "If",
        "Loop",
        "LSTM",
        "NonZero",
        "Range",
        "ReverseSequence",
        "RNN",
        "Scan",
        "Shape",
        "Size",
    ]
)
_BY_VALUE = 32
"""How many parts of one size are handed over by value."""


def as_recorded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Write every `Split` and `Concat` that cannot be replayed as what can, bit for bit the same; changes the model.

    Parts are cut out one by one. To be joined they are made equally wide, and what was added is left out behind. What is
    joined to be cut again into the same parts stays apart.
    """
    parts, graph = _Parts(model), model.graph
    joined = {node.output[0]: node for node in graph.node if node.op_type == "Concat"}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if not parts.differ(node):
            nodes.append(node)
            continue
        axis, sizes = parts.of(node)
        if node.op_type == "Concat":
            nodes += _join(graph, list(node.input), sizes, axis, node.output[0])
        elif (source := joined.get(node.input[0])) and parts.of(source) == (axis, sizes):
            pairs = zip(source.input, node.output, strict=True)
            nodes += [_node("Identity", [part], name) for part, name in pairs]
        else:
            nodes += _cut(graph, node, sizes, axis)
    nodes = _needed(nodes, graph)
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    for k in reversed(range(len(graph.initializer))):
        if graph.initializer[k].name not in read:
            del graph.initializer[k]
    return model


def not_recorded(model: onnx.ModelProto) -> list[str]:
    """What a CUDA graph may replay wrongly, a line each; an empty list is good."""
    parts = _Parts(model)
    found = [node.op_type for node in nodes_of(model.graph) if node.op_type in NEVER]
    found += [f"{node.op_type} of {parts.of(node)[1]}" for node in model.graph.node if parts.differ(node)]
    return list(dict.fromkeys(found))


class _Parts:
    """Sizes of what the nodes of a graph cut and join."""

    def __init__(self, model: onnx.ModelProto) -> None:
        inferred = onnx.shape_inference.infer_shapes(as_inputs(model), data_prop=True).graph
        self._shapes = {
            value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
            for value in (*inferred.input, *inferred.value_info, *inferred.output)
        } | {weight.name: list(weight.dims) for weight in model.graph.initializer}

    def of(self, node: onnx.NodeProto) -> tuple[int, list[int]]:
        """Axis, counted from the first, and sizes along it; none, where it is not known how many axes there are."""
        axis = attributes_of(node).get("axis", 0)
        assert isinstance(axis, int)
        names = node.output if node.op_type == "Split" else node.input
        each = [self._shapes.get(name, []) for name in names]
        if not all(each):
            return axis, []
        axis %= len(each[0])
        return axis, [shape[axis] for shape in each]

    def differ(self, node: onnx.NodeProto) -> bool:
        """Whether it cuts or joins parts of different sizes, or more than are handed over by value."""
        if node.op_type not in {"Split", "Concat"}:
            return False
        _, sizes = self.of(node)
        return len(set(sizes)) != 1 or len(sizes) > _BY_VALUE


def _cut(
    graph: onnx.GraphProto, node: onnx.NodeProto, sizes: Sequence[int], axis: int
) -> Iterator[onnx.NodeProto]:
    for name, size, end in zip(node.output, sizes, accumulate(sizes), strict=True):
        given = {"start": end - size, "end": end, "axis": axis}
        bounds = [_constant(graph, f"{name}.{side}", np.array([at])) for side, at in given.items()]
        yield _node("Slice", [node.input[0], *bounds], name)


def _join(
    graph: onnx.GraphProto, names: list[str], sizes: list[int], axis: int, output: str
) -> Iterator[onnx.NodeProto]:
    if (count := len(names)) > _BY_VALUE:
        groups, widths = [], []
        for start in range(0, count, _BY_VALUE):
            few = slice(start, start + _BY_VALUE)
            groups.append(f"{output}.from{start}of{count}")
            widths.append(sum(sizes[few]))
            yield from _join(graph, names[few], sizes[few], axis, groups[-1])
        yield from _join(graph, groups, widths, axis, output)
        return
    most, same = max(sizes), f"{output}.same"
    if min(sizes) == most:
        yield _node("Concat", names, output, axis=axis)
        return
    wide = list(names)
    for k, size in enumerate(sizes):
        if size < most:
            wide[k] = f"{same}.{k}"
            again = _constant(graph, f"{wide[k]}.places", np.minimum(np.arange(most), size - 1))
            yield _node("Gather", [names[k], again], wide[k], axis=axis)
    yield _node("Concat", wide, same, axis=axis)
    places = np.concatenate([k * most + np.arange(size) for k, size in enumerate(sizes)])
    yield _node("Gather", [same, _constant(graph, f"{output}.places", places)], output, axis=axis)


def _node(kind: str, inputs: Sequence[str], output: str, **attributes: int) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=output, **attributes)


def _constant(graph: onnx.GraphProto, name: str, values: NDArray[np.int64]) -> str:
    graph.initializer.append(numpy_helper.from_array(values, name))
    return name


def _needed(nodes: Sequence[onnx.NodeProto], graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that an output comes from."""
    wanted, needed = {value.name for value in graph.output}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            needed.append(node)
            wanted.update(node.input)
    return needed[::-1]
