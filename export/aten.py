"""From operations of PyTorch to operators of ONNX: a table, and the few that are more than a name.

Every entry takes the builder and the operation's arguments, adds nodes and returns what came out. A tensor among the
arguments is a `Value` of the graph, or a PyTorch tensor where it is known now, as a weight is.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

aten = torch.ops.aten
_END = 2**63 - 1


class Value(NamedTuple):
    """A tensor of the graph."""

    name: str
    dtype: torch.dtype


Operand = Value | Tensor | str
"""What a node may read; an empty name is an input left out."""


class Builder(Protocol):
    """Adds nodes for one operation."""

    def add(self, operator: str, inputs: Sequence[Operand], **attributes: Any) -> Value:
        """Add a node of one output and return that."""
        ...

    def add_parts(self, operator: str, x: Value, axis: int) -> list[Value]:
        """Add a node that cuts `x` along an axis into the sizes that the operation gave."""
        ...

    def rank_of_result(self) -> int:
        """How many axes the operation's result has."""
        ...

    def constant(self, values: Any, dtype: torch.dtype = torch.int64) -> str:
        """Add a constant."""
        ...

    def element_type(self, dtype: torch.dtype) -> int:
        """ONNX's number for a dtype."""
        ...


Rule = Callable[..., Value | list[Value]]


def _named(operator: str, **attributes: Any) -> Rule:
    """The operator that does the same with the tensors given and nothing else."""

    def rule(build: Builder, *inputs: Operand) -> Value:
        if not all(isinstance(one, Value | Tensor) for one in inputs):
            raise TypeError(f"expected tensors alone, got {inputs}")
        return build.add(operator, inputs, **attributes)

    return rule


def _pair(operator: str, *, turned: bool = False) -> Rule:
    """An operator of two, of which either may be a number."""

    def rule(build: Builder, a: Any, b: Any, *, alpha: float = 1) -> Value:
        a, b = (_tensor(build, one, other) for one, other in ((a, b), (b, a)))
        if alpha != 1:
            b = build.add("Mul", [b, _tensor(build, alpha, b)])
        return build.add(operator, [b, a] if turned else [a, b])

    return rule


def _tensor(build: Builder, one: Any, beside: Any) -> Operand:
    return one if isinstance(one, Value | Tensor) else build.constant(one, beside.dtype)


def _linear(build: Builder, x: Operand, weight: Value | Tensor, bias: Operand | None = None) -> Value:
    # A weight is turned here and not in every step.
    turned = weight.T if isinstance(weight, Tensor) else build.add("Transpose", [weight], perm=[1, 0])
    product = build.add("MatMul", [x, turned])
    return product if bias is None else build.add("Add", [product, bias])


def _addmm(build: Builder, bias: Value, a: Value, b: Value) -> Value:
    return build.add("Add", [build.add("MatMul", [a, b]), bias])


def _split(build: Builder, x: Value, sizes: Any, dim: int = 0) -> list[Value]:  # noqa: ARG001 - or their number
    return build.add_parts("Split", x, dim)


def _slice(
    build: Builder, x: Value, dim: int = 0, start: int | None = 0, end: int | None = _END, step: int = 1
) -> Value:
    bounds = [build.constant([number]) for number in (start or 0, _END if end is None else end, dim, step)]
    return build.add("Slice", [x, *bounds])


def _select(build: Builder, x: Value, dim: int, index: int) -> Value:
    return build.add("Gather", [x, build.constant(index)], axis=dim)


def _clamp(build: Builder, x: Value, low: float | None = None, high: float | None = None) -> Value:
    bounds = ["" if bound is None else build.constant(bound, x.dtype) for bound in (low, high)]
    return build.add("Clip", [x, *bounds])


def _lerp(build: Builder, start: Value, end: Value, share: float) -> Value:
    # The side that torch computes it from, too: exact at both ends.
    whole = build.add("Sub", [end, start])
    if abs(share) < 0.5:
        part = build.add("Mul", [whole, build.constant(share, start.dtype)])
        return build.add("Add", [start, part])
    part = build.add("Mul", [whole, build.constant(1 - share, start.dtype)])
    return build.add("Sub", [end, part])


def _reduce(operator: str) -> Rule:
    def rule(build: Builder, x: Value, dims: list[int], keepdim: bool = False) -> Value:
        return build.add(operator, [x, build.constant(dims)], keepdims=int(keepdim))

    return rule


def _to(build: Builder, x: Value, dtype: torch.dtype) -> Value:
    if x.dtype == dtype:
        return x
    return build.add("Cast", [x], to=build.element_type(dtype))


def _transpose(build: Builder, x: Value, one: int, other: int) -> Value:
    order = list(range(build.rank_of_result()))
    order[one], order[other] = order[other], order[one]
    return build.add("Transpose", [x], perm=order)


def _layer_norm(
    build: Builder,
    x: Value,
    shape: list[int],
    weight: Operand | None = None,
    bias: Operand | None = None,
    eps: float = 1e-5,
    cudnn: bool = False,  # noqa: ARG001 - a kernel of torch's
) -> Value:
    scale = torch.ones(shape, dtype=x.dtype) if weight is None else weight
    rest = [] if bias is None else [bias]
    return build.add("LayerNormalization", [x, scale, *rest], axis=-len(shape), epsilon=eps)


RULES: dict[Any, Rule] = {
    aten.linear.default: _linear,
    aten.embedding.default: lambda build, table, tokens, *_: build.add("Gather", [table, tokens], axis=0),
    aten.matmul.default: _named("MatMul"),
    aten.bmm.default: _named("MatMul"),
    aten.mm.default: _named("MatMul"),
    aten.addmm.default: _addmm,
    aten.add.Tensor: _pair("Add"),
    aten.sub.Tensor: _pair("Sub"),
    aten.rsub.Scalar: _pair("Sub", turned=True),
    aten.mul.Tensor: _pair("Mul"),
    aten.div.Tensor: _pair("Div"),
    aten.pow.Tensor_Scalar: _pair("Pow"),
    aten.maximum.default: _pair("Max"),
    aten.minimum.default: _pair("Min"),
    aten.gt.Scalar: _pair("Greater"),
    aten.gt.Tensor: _pair("Greater"),
    aten.ge.Scalar: _pair("GreaterOrEqual"),
    aten.lt.Scalar: _pair("Less"),
    aten.lt.Tensor: _pair("Less"),
    aten.le.Scalar: _pair("LessOrEqual"),
    aten.where.self: _named("Where"),
    aten.lerp.Scalar: _lerp,
    aten.clamp.default: _clamp,
    aten.hardtanh.default: _clamp,
    aten.sigmoid.default: _named("Sigmoid"),
    aten.hardsigmoid.default: _named("HardSigmoid", alpha=1 / 6, beta=0.5),
    aten.tanh.default: _named("Tanh"),
    aten.relu.default: _named("Relu"),
    aten.softplus.default: _named("Softplus"),
    aten.gelu.default: _named("Gelu"),
    aten.silu.default: lambda build, x: build.add("Mul", [x, build.add("Sigmoid", [x])]),
    aten.exp.default: _named("Exp"),
    aten.log.default: _named("Log"),
    aten.sqrt.default: _named("Sqrt"),
    aten.square.default: lambda build, x: build.add("Mul", [x, x]),
    aten.abs.default: _named("Abs"),
    aten.neg.default: _named("Neg"),
    aten.sin.default: _named("Sin"),
    aten.cos.default: _named("Cos"),
    aten.mean.dim: _reduce("ReduceMean"),
    aten.sum.dim_IntList: _reduce("ReduceSum"),
    aten.softmax.int: lambda build, x, dim: build.add("Softmax", [x], axis=dim),
    aten.layer_norm.default: _layer_norm,
    aten.cat.default: lambda build, tensors, dim=0: build.add("Concat", tensors, axis=dim),
    aten.chunk.default: _split,
    aten.split.Tensor: _split,
    aten.split_with_sizes.default: _split,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.transpose.int: _transpose,
    aten.unsqueeze.default: lambda build, x, dim: build.add("Unsqueeze", [x, build.constant([dim])]),
    aten.squeeze.dim: lambda build, x, dim: build.add("Squeeze", [x, build.constant([dim])]),
    aten.to.dtype: _to,
    aten.dropout.default: lambda _, x, *_share_and_mode: x,  # traced in evaluation
    aten.clone.default: lambda _, x: x,
    aten.detach.default: lambda _, x: x,
    aten.contiguous.default: lambda _, x: x,
}
"""The operations known here. A cell that needs another one needs a line in this table."""
