"""A graph under construction."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor

from carousel.contract import Contract
from carousel.graph import TensorType, graph_inputs, graph_outputs
from export.element_types import ELEMENT_TYPES
from export.metadata import set_contract

# The newest pair that every runtime in use loads; the defaults of the onnx package are refused by GPU builds, and
# recurrent operators of opset 22 and later fall back to the CPU without a word on older ones.
OPSET = 20
IR_VERSION = 10


class Draft:
    """Nodes and weights in the order they were added; values are known by their names."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def weight(self, name: str, values: NDArray[Any]) -> str:
        """Add a constant and return its name."""
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        """Add a node; it is named after its first output."""
        self._nodes.append(helper.make_node(operator, inputs, outputs, name=outputs[0], **attributes))

    def to_model(self, contract: Contract) -> onnx.ModelProto:
        """Close the graph: its inputs and outputs are those of the contract, which goes into the metadata."""
        graph = helper.make_graph(
            self._nodes,
            contract.task,
            [_value_info(name, tensor) for name, tensor in graph_inputs(contract).items()],
            [_value_info(name, tensor) for name, tensor in graph_outputs(contract).items()],
            self._weights,
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(
            graph, producer_name="carousel", ir_version=IR_VERSION, opset_imports=[opset]
        )
        set_contract(model, contract)
        return model


def as_float32(weight: Tensor) -> NDArray[np.float32]:
    """The numbers of a torch weight."""
    return weight.detach().float().cpu().numpy()


def _value_info(name: str, tensor: TensorType) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[tensor.dtype], tensor.shape)
