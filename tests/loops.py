"""For tests of the server's own loops: what they do, done by hand from outside, and a model of numbers that feeds itself."""

from typing import Any

import grpc
import numpy as np
import onnx

from carousel.contract import Port
from carousel.wire import carousel_pb2 as pb
from export.draft import Draft
from service.sampling import Sampling
from tests.ports_model import contract
from tests.wire import V, tokens

GROWTH = (
    Port(name="level", dtype="float32", shape=(2,)),
    Port(name="push", dtype="float32"),
)
GROWN = (
    Port(name="next_level", dtype="float32", shape=(2,), feeds="level"),
    Port(name="total", dtype="float32"),
)


def growth(outputs: tuple[Port, ...] = GROWN) -> onnx.ModelProto:
    """total_t = total_(t-1) + push_t; next_level_t = level_t / 2 + total_t. The state is the total."""
    draft = Draft()
    draft.node("CumSum", ["push", draft.weight("time", np.array(1))], ["pushed"])
    draft.node("Add", ["pushed", "state"], ["total"])
    draft.node("Mul", ["level", draft.weight("half", np.float32(0.5))], ["halved"])
    draft.node("Unsqueeze", ["total", draft.weight("last_axis", np.array([2]))], ["total_BT1"])
    draft.node("Add", ["halved", "total_BT1"], ["next_level"])
    draft.node("Cast", ["lengths"], ["lengths64"], to=onnx.TensorProto.INT64)
    draft.node("Sub", ["lengths64", draft.weight("one", np.array(1))], ["last"])
    draft.node("Unsqueeze", ["last", draft.weight("column", np.array([1]))], ["last_B1"])
    draft.node("GatherElements", ["total", "last_B1"], ["state_out"], axis=1)
    return draft.to_model(contract(GROWTH, outputs, format=3))


def floats(name: str, values: Any) -> pb.Tensor:
    return pb.Tensor(name=name, data=np.array(values, "<f4").tobytes())


async def logits(stub: Any, session: str, *fed: int, **fields: Any) -> np.ndarray:
    """Step with tokens; the answer to the last."""
    answer = await stub.Step(pb.StepRequest(session=session, length=len(fed), inputs=tokens(*fed), **fields))
    return np.frombuffer(answer.outputs[0].data, "<f4").reshape(-1, V)[-1]


async def by_hand(
    stub: Any,
    session: str,
    prompt: list[int],
    count: int,
    sampling: Sampling,
    stop: frozenset[int] = frozenset(),
) -> list[int]:
    """What `Generate` promises, one `Step` after the other."""
    made: list[int] = []
    index = (await stub.Describe(pb.DescribeRequest(session=session))).next_index + len(prompt) - 1
    scores = await logits(stub, session, *prompt)
    while len(made) < count:
        made.append(sampling.token(scores, index))
        if made[-1] in stop:
            break
        if len(made) < count:
            scores, index = await logits(stub, session, made[-1]), index + 1
    return made


async def generated(call: Any, into: list[int] | None = None) -> list[int]:
    """The tokens of a call from here on, whose indices must be without a gap."""
    made: list[int] = [] if into is None else into
    start = None
    while (response := await call.read()) is not grpc.aio.EOF:
        start = response.first_index - len(made) if start is None else start
        assert response.first_index == start + len(made)
        made += response.tokens
    return made


async def next_index(stub: Any, session: str) -> int:
    return (await stub.Describe(pb.DescribeRequest(session=session))).next_index
