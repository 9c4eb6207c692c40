"""Traced operations written into a draft."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from export.aten import RULES, Operand, Value
from export.draft import Draft
from export.element_types import ELEMENT_TYPES
from export.errors import ExportError

_View = tuple[int, tuple[int, ...], tuple[int, ...]]


class Nodes:
    """The nodes for one trace, or for a part of it.

    What depends on constants alone is computed here and becomes a constant: a weight that a step cuts or turns
    is cut and turned once.

    Args:
        draft: Where the nodes go.
        prefix: What all names begin with.
        owner: Whom a refusal names.
        constants: By the name of their placeholder.
        given: Names in the draft of the other placeholders.
    """

    def __init__(
        self,
        draft: Draft,
        prefix: str,
        owner: str,
        constants: Mapping[str, Tensor],
        given: Mapping[str, str],
    ) -> None:
        self._draft, self._prefix, self._owner = draft, prefix, owner
        self._constants, self._given = constants, given
        self._known: dict[fx.Node, Any] = {}
        self._names: dict[_View, str] = {}
        self._node: fx.Node
        self._made = 0

    def write(self, results: Sequence[fx.Node]) -> list[str]:
        """Add what the results need, in order, and return their names.

        Raises:
            ExportError: an operation that has no form in ONNX here.
        """
        needed = _ancestors(results)
        for node in results[0].graph.nodes:
            if node in needed and node not in self._known:
                self._node, self._made = node, 0
                self._known[node] = self._value(node)
        return [self._name(self._known[node]) for node in results]

    def add(self, operator_: str, inputs: Sequence[Operand], **attributes: Any) -> Value:
        """Add a node of one output and return that."""
        name = self._fresh()
        self._draft.node(operator_, [self._name(one) for one in inputs], [name], **attributes)
        return Value(name, self._node.meta["val"].dtype)

    def add_parts(self, operator_: str, x: Value, axis: int) -> list[Value]:
        """Add a node that cuts `x` along an axis into the sizes that the operation gave."""
        parts = self._node.meta["val"]
        sizes = self.constant([int(part.shape[axis]) for part in parts])
        values = [Value(f"{self._fresh()}.{k}", part.dtype) for k, part in enumerate(parts)]
        self._draft.node(operator_, [x.name, sizes], [value.name for value in values], axis=axis)
        return values

    def rank_of_result(self) -> int:
        """How many axes the operation's result has."""
        return len(self._node.meta["val"].shape)

    def constant(self, values: Any, dtype: torch.dtype = torch.int64) -> str:
        """Add a constant."""
        return self._name(torch.as_tensor(values).to(dtype))

    def element_type(self, dtype: torch.dtype) -> int:
        """ONNX's number for a dtype; float32 is what is computed in."""
        return (
            self._draft.real if dtype == torch.float32 else ELEMENT_TYPES[str(dtype).removeprefix("torch.")]
        )

    def _value(self, node: fx.Node) -> Any:
        """What an operation comes to: a value of the graph or a constant tensor, or a list of them."""
        if node.op == "placeholder":
            if node.name in self._constants:
                return self._weight(node.name)
            return Value(self._given[node.name], node.meta["val"].dtype)
        arguments: Any = fx.map_arg((node.args, node.kwargs), self._known.__getitem__)
        args, kwargs = arguments
        if node.target is operator.getitem:
            return args[0][args[1]]
        if not any(_in_graph(self._known[one]) for one in node.all_input_nodes):
            return node.target(*args, **kwargs)  # type: ignore[operator]  # a name only where there is a module
        no_form = f"{self._owner}: {node.target} has no form in ONNX here, see the table in export/aten.py"
        if node.target not in RULES:
            raise ExportError(no_form)
        try:
            return RULES[node.target](self, *args, **kwargs)
        except TypeError as error:  # an option that the table does not know
            raise ExportError(f"{no_form} ({error})") from error

    def _weight(self, placeholder: str) -> Tensor:
        weight = self._constants[placeholder].detach().cpu()
        # torch.export puts its kind and the module's name before the weight's own.
        name = placeholder.split("_cell_", 1)[-1]
        self._names[_view(weight)] = name
        if weight.dim() == 2:
            self._names.setdefault(_view(weight.T), f"{name}_T")
        return weight

    def _name(self, one: Operand) -> str:
        """The name of an operand; a constant gets one, and its place among the weights, when it is first read."""
        if isinstance(one, str):
            return one
        if isinstance(one, Value):
            return one.name
        name = self._names.get(_view(one)) or f"{self._node.name}.constant{self._count()}"
        return self._draft.weight(f"{self._prefix}{name}", one.numpy())

    def _fresh(self) -> str:
        return f"{self._prefix}{self._node.name}{self._count()}"

    def _count(self) -> str:
        self._made += 1
        return f".{self._made}" if self._made > 1 else ""


def _view(tensor: Tensor) -> _View:
    """What two tensors have in common that are the same numbers in the same order: memory, sizes and strides."""
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride()


def _in_graph(known: Any) -> bool:
    parts = known if isinstance(known, list) else [known]
    return any(isinstance(part, Value) for part in parts)


def _ancestors(results: Sequence[fx.Node]) -> set[fx.Node]:
    found: set[fx.Node] = set()
    open_ = list(results)
    while open_:
        node = open_.pop()
        if node not in found:
            found.add(node)
            open_.extend(node.all_input_nodes)
    return found
