"""Weights of 8 bits, made of a finished float32 graph.

Axes: K inputs and N outputs of a product, b blocks of inputs.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.structure import RUNTIME_DOMAIN
from export.walk import bodies_of, names_read

_SMALLEST_BLOCK, _BLOCK = 16, 64
_ZERO = 128
"""What stands for 0 among the numbers 0 to 255."""
# The operator then also rounds what it multiplies with, a scale for each row and block: rows do not feel each other.
_INT8_ARITHMETIC = 4


def int8_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give every product with a constant matrix weights of 8 bits, a scale for each output and block of inputs.

    Source: operator MatMulNBits of ONNX Runtime.
    """
    quantised = onnx.ModelProto()
    quantised.CopyFrom(model)
    weights = {weight.name: weight for weight in quantised.graph.initializer}
    made: dict[str, onnx.TensorProto] = {}
    _replace_products(quantised.graph, weights, made)
    used = set(names_read(quantised.graph))
    kept = [weight for weight in (*weights.values(), *made.values()) if weight.name in used]
    del quantised.graph.initializer[:]
    quantised.graph.initializer.extend(kept)
    quantised.opset_import.append(helper.make_opsetid(RUNTIME_DOMAIN, 1))
    return quantised


def int8_dynamic(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give LSTMs and products weights of 8 bits, and inputs of 8 bits with one scale for a whole batch.

    GRU and RNN have no such operator and stay as they are.

    Source: `quantize_dynamic` of ONNX Runtime.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 - slow, and seldom asked for

    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        onnx.save(model, before)
        quantize_dynamic(
            before,
            after,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["LSTM", "MatMul"],
            extra_options={"EnableSubgraph": True, "MatMulConstBOnly": True},
        )
        quantised = onnx.load(after)
    quantised.producer_name = model.producer_name
    if RUNTIME_DOMAIN not in {entry.domain for entry in quantised.opset_import}:
        quantised.opset_import.append(helper.make_opsetid(RUNTIME_DOMAIN, 1))
    return quantised


def _replace_products(
    graph: onnx.GraphProto, weights: dict[str, onnx.TensorProto], made: dict[str, onnx.TensorProto]
) -> None:
    for node in graph.node:
        for body in bodies_of(node):
            _replace_products(body, weights, made)
        matrix = weights.get(node.input[1]) if node.op_type == "MatMul" else None
        if matrix is not None and len(matrix.dims) == 2:
            W_KN = numpy_helper.to_array(matrix)
            block = min(_BLOCK, max(_SMALLEST_BLOCK, 1 << (len(W_KN) - 1).bit_length()))
            B, scales = (f"{matrix.name}.int8", f"{matrix.name}.scales")
            for name, values in zip((B, scales), rounded(W_KN, block), strict=True):
                made[name] = numpy_helper.from_array(values, name)
            K, N = W_KN.shape
            attributes: dict[str, Any] = {"K": K, "N": N, "bits": 8, "block_size": block}
            product = helper.make_node(
                "MatMulNBits",
                [node.input[0], B, scales],
                list(node.output),
                name=node.name,
                domain=RUNTIME_DOMAIN,
                accuracy_level=_INT8_ARITHMETIC,
                **attributes,
            )
            node.CopyFrom(product)


def rounded(W_KN: NDArray[np.float32], block: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Blocks `[N, b, block]` and scales `[N, b]`: weight = (number - 128) * scale."""
    K, N = W_KN.shape
    padded = np.pad(W_KN, ((0, -K % block), (0, 0)))
    blocks = padded.T.reshape(N, -1, block)
    scales = np.abs(blocks).max(axis=2) / (_ZERO - 1)
    steps = blocks / np.where(scales, scales, 1)[:, :, None]
    return (np.rint(steps) + _ZERO).astype(np.uint8), scales.astype(np.float32)
