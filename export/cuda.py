"""What ONNX Runtime's CUDA provider would hand to the CPU: each such operator costs two copies and a wait in every run.

Source: its table of kernels (docs/OperatorKernels.md), `RNNNeedFallbackToCPU` in cuda_execution_provider.cc and
`GetCpuPreferredNodes` in fallback_cpu_capability.cc, which hands over whatever computes with a shape.
"""

from collections.abc import Iterator

import onnx

from export.walk import attributes_of, nodes_of

# Of the operators that this package writes, those with a kernel at opset 20.
KERNELS = frozenset(
    [
        "Abs",
        "Add",
        "Cast",
        "Clip",
        "Concat",
        "Cos",
        "Div",
        "Exp",
        "Expand",
        "Gather",
        "Gelu",
        "Gemm",
        "Greater",
        "GreaterOrEqual",
        "GRU",
        "HardSigmoid",
        "Identity",
        "LayerNormalization",
        "Less",
        "LessOrEqual",
        "Log",
        "LSTM",
        "MatMul",
        "MatMulNBits",
        "Max",
        "Min",
        "Mul",
        "Neg",
        "Pad",
        "Pow",
        "Range",
        "ReduceMean",
        "ReduceSum",
        "Relu",
        "Reshape",
        "ReverseSequence",
        "RNN",
        "Scan",
        "ScatterND",
        "Shape",
        "Sigmoid",
        "Sin",
        "Size",
        "Slice",
        "Softmax",
        "Softplus",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Tanh",
        "Transpose",
        "Unsqueeze",
        "Where",
    ]
)
_ON_THE_HOST = frozenset([("Range", 0), ("Range", 1), ("Range", 2), ("Expand", 1), ("Reshape", 1)])
"""Operators and the positions of their inputs that a kernel wants in host memory, where shapes are."""
_ACTIVATIONS = {"LSTM": [b"Sigmoid", b"Tanh", b"Tanh"], "GRU": [b"Sigmoid", b"Tanh"], "RNN": [b"Tanh"]}
_PEEPHOLES = 7
"""Position of the LSTM's input P."""


def fallbacks(model: onnx.ModelProto) -> list[str]:
    """What would run on the CPU, a line each, without those that are the same; an empty list is good."""
    nodes = list(nodes_of(model.graph))
    found = [line for node in nodes for line in _reasons(node)]
    shapes = {node.output[0] for node in nodes if node.op_type in {"Shape", "Size"}}
    found += [
        f"{node.op_type} computes with a shape"
        for node in nodes
        for position, name in enumerate(node.input)
        if name in shapes and (node.op_type, position) not in _ON_THE_HOST
    ]
    return list(dict.fromkeys(found))


def _reasons(node: onnx.NodeProto) -> Iterator[str]:
    kind = node.op_type
    if kind not in KERNELS:
        yield f"{kind} has no kernel"
    if kind not in _ACTIVATIONS:
        return
    given = attributes_of(node)
    if len(node.input) > _PEEPHOLES and node.input[_PEEPHOLES]:
        yield "LSTM with peepholes"
    if given.get("input_forget"):
        yield "LSTM with input_forget"
    if "clip" in given:
        yield f"{kind} with a clip"
    if kind == "GRU" and not given.get("linear_before_reset"):
        yield "GRU that resets before the product"
    activations = given.get("activations", _ACTIVATIONS[kind])
    if activations != _ACTIVATIONS[kind] or given.keys() & {"activation_alpha", "activation_beta"}:
        yield f"{kind} with other activations"
