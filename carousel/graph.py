"""The inputs and outputs that a contract demands of its graph, and where a graph differs from them."""

from collections.abc import Mapping
from typing import NamedTuple

from carousel.contract import Contract, Port

_SIZES: dict[str, int | str] = {"batch": "B", "time": "T", "node": "N"}


class TensorType(NamedTuple):
    """Type of one graph input or output; a dimension that may be any number is a name."""

    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(str(size) for size in self.shape)}]"


def graph_inputs(contract: Contract) -> dict[str, TensorType]:
    """Ports `[*axes, *shape]`, then `lengths [B]`, then the state planes `[B, size]`.

    A step graph that was verified for one step takes one: its ports are `[B, 1, *shape]`. In the arena form the planes
    are `[N, size]`, and the rows read and written `[B]` come after them.
    """
    planes = {
        plane.input: TensorType(plane.dtype, (_rows(contract), plane.size)) for plane in contract.planes
    }
    lengths = [contract.lengths] if contract.lengths else []
    arena = contract.arena
    rows = [] if arena is None else [arena.read_rows, arena.write_rows]
    return {
        **_ports(contract, contract.inputs),
        **dict.fromkeys(lengths, TensorType("int32", ("B",))),
        **planes,
        **dict.fromkeys(rows, TensorType("int64", ("B",))),
    }


def graph_outputs(contract: Contract) -> dict[str, TensorType]:
    """Ports `[*axes, *shape]`, then the next state of every plane that is written, then what is observed `[B, K]`.

    The arena form says of each row, at the end, whether it is finite, `[B]`.
    """
    planes = {p.output: TensorType(p.dtype, (_rows(contract), p.size)) for p in contract.planes if p.output}
    outputs = {**_ports(contract, contract.outputs), **planes}
    if contract.observed is not None:
        shape = ("B", len(contract.observed.statistics))
        outputs[contract.observed.output] = TensorType("float32", shape)
    if contract.arena is not None:
        outputs[contract.arena.finite] = TensorType("float32", ("B",))
    return outputs


def disagreements(
    contract: Contract, inputs: Mapping[str, TensorType], outputs: Mapping[str, TensorType]
) -> list[str]:
    """Where a graph's inputs and outputs are not those of the contract, a line each."""
    return [
        *_differences("input", graph_inputs(contract), inputs),
        *_differences("output", graph_outputs(contract), outputs),
    ]


def _differences(kind: str, promised: Mapping[str, TensorType], found: Mapping[str, TensorType]) -> list[str]:
    return [
        f"{kind} {name!r} is {promised.get(name, 'not')} in the contract, {found.get(name, 'not')} in the graph"
        for name in sorted(promised.keys() | found.keys())
        if not _same(promised.get(name), found.get(name))
    ]


def _same(promised: TensorType | None, found: TensorType | None) -> bool:
    """Whether two types are the same but for the names of their open dimensions."""
    if promised is None or found is None:
        return False
    fixed = [
        [size if isinstance(size, int) else None for size in tensor.shape] for tensor in (promised, found)
    ]
    return promised.dtype == found.dtype and fixed[0] == fixed[1]


def _rows(contract: Contract) -> str:
    return "B" if contract.form == "rows" else "N"


def _ports(contract: Contract, ports: tuple[Port, ...]) -> dict[str, TensorType]:
    sizes = _SIZES | ({"time": 1} if contract.kind == "step" and contract.max_steps == 1 else {})
    return {
        port.name: TensorType(port.dtype, (*(sizes[axis] for axis in port.axes), *port.shape))
        for port in ports
    }
