"""A graph under construction."""

from collections.abc import Collection
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
from export.walk import bodies_of, names_read

# The newest pair that every runtime in use loads; the defaults of the onnx package are refused by GPU builds, and
# recurrent operators of opset 22 and later fall back to the CPU without a word on older ones.
OPSET = 20
IR_VERSION = 10


class Draft:
    """Nodes and weights in the order they were added; values are known by their names.

    Args:
        half: Compute in float16. What enters and leaves as float32 passes through `as_real` and `float32_node`.
    """

    def __init__(self, *, half: bool = False) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}
        self._half = half

    @property
    def real(self) -> int:
        """ONNX's number for the type that is computed in."""
        return ELEMENT_TYPES["float16" if self._half else "float32"]

    def inner(self) -> "Draft":
        """A draft for the body of a loop. Its weights are the outer graph's, its values are seen by nobody else."""
        inside = Draft(half=self._half)
        inside._weights = self._weights
        return inside

    def weight(self, name: str, values: NDArray[Any] | np.generic) -> str:
        """Add a constant and return its name; float32 becomes what is computed in. The same one may be added again."""
        if self._half and values.dtype == np.float32:
            with np.errstate(over="ignore"):  # infinity is found when the graph is verified
                values = values.astype(np.float16)
        # Not ascontiguousarray, which makes a vector of a single number.
        weight = numpy_helper.from_array(np.array(values, order="C"), name)
        assert self._weights.setdefault(name, weight) == weight, f"two constants named {name}"
        return name

    def node(self, operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        """Add a node; it is named after its first output."""
        self._nodes.append(helper.make_node(operator, inputs, outputs, name=outputs[0], **attributes))

    def makes(self, value: str) -> bool:
        """Whether a node here has this output."""
        return any(value in node.output for node in self._nodes)

    def as_real(self, value: str) -> str:
        """A float32 value as what is computed in."""
        if not self._half:
            return value
        self.node("Cast", [value], [f"{value}.half"], to=self.real)
        return f"{value}.half"

    def float32_node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> None:
        """Add a node of one output that comes out as float32."""
        computed = f"{output}.half" if self._half else output
        self.node(operator, inputs, [computed], **attributes)
        if self._half:
            self.node("Cast", [computed], [output], to=ELEMENT_TYPES["float32"])

    def to_body(
        self, name: str, inputs: list[str], outputs: list[str], integers: Collection[str] = ()
    ) -> onnx.GraphProto:
        """Close the body of a loop, whose inputs and outputs have the shapes that follow from the outer graph.

        Args:
            name: Of the body.
            inputs: Names.
            outputs: Names.
            integers: Those of them that are int64; the others are what is computed in.
        """
        whole = ELEMENT_TYPES["int64"]
        ports = [
            [
                helper.make_tensor_value_info(one, whole if one in integers else self.real, None)
                for one in names
            ]
            for names in (inputs, outputs)
        ]
        return helper.make_graph(self._nodes, name, *ports)

    def to_model(self, contract: Contract) -> onnx.ModelProto:
        """Close the graph: its inputs and outputs are those of the contract, which goes into the metadata.

        What no output needs is left out.
        """
        outputs = graph_outputs(contract)
        graph = helper.make_graph(
            self._needed(set(outputs)),
            contract.task,
            [_value_info(name, tensor) for name, tensor in graph_inputs(contract).items()],
            [_value_info(name, tensor) for name, tensor in outputs.items()],
        )
        read = set(names_read(graph))
        graph.initializer.extend(weight for name, weight in self._weights.items() if name in read)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(
            graph, producer_name="carousel", ir_version=IR_VERSION, opset_imports=[opset]
        )
        set_contract(model, contract)
        return model

    def _needed(self, wanted: set[str]) -> list[onnx.NodeProto]:
        """The nodes that something wanted comes from, in order."""
        needed: list[onnx.NodeProto] = []
        for node in reversed(self._nodes):
            if wanted.intersection(node.output):
                needed.append(node)
                wanted.update(node.input, *(names_read(body) for body in bodies_of(node)))
        return needed[::-1]


def as_float32(weight: Tensor) -> NDArray[np.float32]:
    """The numbers of a torch weight."""
    return weight.detach().float().cpu().numpy()


def _value_info(name: str, tensor: TensorType) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[tensor.dtype], tensor.shape)
