"""A model with a port of every dtype, small enough for NumPy to follow, and odd models for what must be refused."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx

from carousel.contract import Contract, Plane, Port, Segment, Signature, layout_hash
from carousel.wire.carousel_pb2_grpc import CarouselStub
from carousel.wire.frames import NUMPY
from export.draft import Draft
from export.element_types import ELEMENT_TYPES
from service.server import Server, start_server
from service.settings import Settings

INPUTS = (
    Port(name="flag", dtype="bool"),
    Port(name="letter", dtype="uint8", vocabulary=tuple("abcde")),
    Port(name="small", dtype="int8"),
    Port(name="count", dtype="int32", shape=(2,)),
    Port(name="large", dtype="int64"),
    Port(name="half", dtype="float16", shape=(3,)),
    Port(name="single", dtype="float32", shape=(2, 2)),
    Port(name="double", dtype="float64", shape=(2,)),
)
OUTPUTS = (
    Port(name="sum", dtype="float32"),
    *(Port(name=f"{p.name}_out", dtype=p.dtype, shape=p.shape) for p in INPUTS),
)
INITIAL = 3.0
"""Where the state starts: s_t = s_(t-1) + the sum of all numbers of step t, which is output `sum`."""


def contract(inputs: tuple[Port, ...], outputs: tuple[Port, ...], **fields: Any) -> Contract:
    """A contract for a state row of one number."""
    planes = (Plane(input="state", output="state_out", dtype="float32", size=1),)
    segments = (Segment(name="sum", start=0, size=1),)
    layout = layout_hash("sum", inputs, outputs, planes, segments)
    signature = Signature(layout=layout, lineage="test")
    return Contract(
        task="test",
        recurrence="sum",
        inputs=inputs,
        outputs=outputs,
        lengths="lengths",
        planes=planes,
        segments=segments,
        invariant=False,
        signature=signature,
        **fields,
    )


def every_dtype(**fields: Any) -> onnx.ModelProto:
    """Outputs `<name>_out` are bool `not x`, and otherwise -x (unsigned: 4 - x); `sum` runs through the sequence."""
    draft = Draft()
    totals = [_total(draft, port) for port in INPUTS]
    draft.node("Sum", totals, ["step_total"])
    draft.node("CumSum", ["step_total", draft.weight("time", np.array(1))], ["sums"])
    draft.node("Add", ["sums", "state"], ["sum"])
    draft.node("Cast", ["lengths"], ["lengths64"], to=ELEMENT_TYPES["int64"])
    draft.node("Sub", ["lengths64", draft.weight("one", np.array(1))], ["last"])
    draft.node("Unsqueeze", ["last", draft.weight("column", np.array([1]))], ["last_B1"])
    draft.node("GatherElements", ["sum", "last_B1"], ["state_out"], axis=1)
    for port in INPUTS:
        _opposite(draft, port)
    return draft.to_model(contract(INPUTS, OUTPUTS, initial=(INITIAL,), **fields))


def followed(inputs: list[np.ndarray]) -> list[np.ndarray]:
    """What `every_dtype` answers to one whole sequence, in the order of `OUTPUTS`."""
    totals = sum(array.reshape(len(array), -1).astype(np.float32).sum(axis=1) for array in inputs)
    outputs = [(INITIAL + np.cumsum(totals)).astype(np.float32)]
    for port, array in zip(INPUTS, inputs, strict=True):
        match port.dtype:
            case "bool":
                outputs.append(~array)
            case "uint8":
                outputs.append(4 - array)
            case _:
                outputs.append(-array)
    return outputs


def some_steps(rng: np.random.Generator, steps: int) -> list[np.ndarray]:
    """Small whole numbers, so that sums are exact in any order."""
    lows = {"bool": 0, "uint8": 0}
    highs = {"bool": 2, "uint8": 5}
    return [
        rng.integers(lows.get(p.dtype, -9), highs.get(p.dtype, 10), (steps, *p.shape)).astype(NUMPY[p.dtype])
        for p in INPUTS
    ]


def odd(operator: Callable[[Draft], None], width: int | None = None, **fields: Any) -> onnx.ModelProto:
    """A model `x` to `y`, both float32, whose output is made by `operator`; the state stays what it is."""
    inputs = (Port(name="x", dtype="float32"),)
    outputs = (Port(name="y", dtype="float32", shape=() if width is None else (width,)),)
    draft = Draft()
    operator(draft)
    draft.node("Identity", ["state"], ["state_out"])
    return draft.to_model(contract(inputs, outputs, **fields))


def save(model: onnx.ModelProto, repository: Path, name: str) -> Path:
    """Put a model where the service looks for it."""
    path = repository / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(model, path)
    return path


@asynccontextmanager
async def serving(models: Path, **settings: Any) -> AsyncIterator[tuple[Server, CarouselStub]]:
    """The whole service around a repository, and a client."""
    server = await start_server(Settings.load({"models": models, "grpc_port": 0, "http_port": 0, **settings}))
    try:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}", options) as channel:
            yield server, CarouselStub(channel)
    finally:
        await server.stop()


def _total(draft: Draft, port: Port) -> str:
    """The sum of all numbers of a step, float32 `[B, T]`."""
    as_float, total = f"{port.name}_float", f"{port.name}_total"
    draft.node("Cast", [port.name], [as_float], to=ELEMENT_TYPES["float32"])
    if not port.shape:
        return as_float
    axes = draft.weight(f"{port.name}_axes", np.arange(2, 2 + len(port.shape)))
    draft.node("ReduceSum", [as_float, axes], [total], keepdims=0)
    return total


def _opposite(draft: Draft, port: Port) -> None:
    name = port.name
    match port.dtype:
        case "bool":
            draft.node("Not", [name], [f"{name}_out"])
        case "uint8":
            draft.node("Sub", [draft.weight("four", np.float32(4)), f"{name}_float"], [f"{name}_opposite"])
            draft.node("Cast", [f"{name}_opposite"], [f"{name}_out"], to=ELEMENT_TYPES["uint8"])
        case _:
            draft.node("Neg", [name], [f"{name}_out"])
