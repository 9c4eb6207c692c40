"""What ONNX Runtime's CUDA provider would hand to the CPU: each such operator costs two copies and a wait in every run.

Source: its table of kernels (docs/OperatorKernels.md) and `RNNNeedFallbackToCPU` in cuda_execution_provider.cc.
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
        "GatherND",
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
_ACTIVATIONS = {"LSTM": [b"Sigmoid", b"Tanh", b"Tanh"], "GRU": [b"Sigmoid", b"Tanh"], "RNN": [b"Tanh"]}
_PEEPHOLES = 7
"""Position of the LSTM's input P."""


def fallbacks(model: onnx.ModelProto) -> list[str]:
    """What would run on the CPU, a line each, without those that are the same; an empty list is good."""
    return list(dict.fromkeys(line for node in nodes_of(model.graph) for line in _reasons(node)))


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
