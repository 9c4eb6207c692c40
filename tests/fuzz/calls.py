"""What is asked by calls: of every method something right, something wrong, and bytes that are no request."""

from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import Message
from hypothesis import strategies as st

from carousel.wire import carousel_pb2 as pb
from tests.fuzz.beside import KINDS, NEWEST, WHOLE, Beside, array
from tests.fuzz.frames import (
    any_token,
    damaged,
    mostly,
    names,
    odd_tensors,
    small,
    uint32,
    uint64,
    wounds,
)
from tests.fuzz.snapshots import Torn, torn
from tests.loops import floats
from tests.whole import CHILDREN, FEATURES, MOST_SOURCE, SOURCE, TARGET
from tests.wire import tokens

FORKED = 1100
"""More copies than one call may ask for."""


class Call(NamedTuple):
    """One call, and whether its caller waits for what comes of it."""

    method: str
    request: Message | bytes
    snapshot: Torn | None = None
    """Goes into the request."""
    leaves: bool = False

    def message(self, beside: Beside) -> bytes:
        """What is sent."""
        if isinstance(self.request, bytes):
            return self.request
        request = type(self.request)()
        request.CopyFrom(self.request)
        if self.snapshot is not None:
            request.snapshot = self.snapshot.data(beside)
        if getattr(request, "request_id", "") in ONE_LETTER:
            request.request_id += f" {beside.round}"
        return request.SerializeToString()


models = st.sampled_from([*KINDS, *KINDS, *WHOLE, "none", "", "../tiny"])
versions = st.sampled_from(["", "", "1", "2", "3", NEWEST, "9", "x", "\0"])
reals = st.floats(allow_subnormal=False)
"""Hypothesis refuses to make others once ONNX Runtime has told this thread to take them for zero."""
ONE_LETTER = ("a", "b")
"""Request ids that are others in every example: else each but the first would be a repetition."""
request_ids = st.sampled_from(["", "", *ONE_LETTER, *ONE_LETTER, "\0", "y" * 200])
ttls = mostly(st.just(0.0), reals)
finite = st.one_of(
    st.integers(-9, 9).map(float), st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
)
"""Not so large that a sum of some is infinite: whoever asks for that is told so as if the server had failed."""
numbers = st.one_of(finite, st.sampled_from([np.nan, np.inf]))
few_tokens = st.integers(0, len(TARGET) - 1)
"""That every model with tokens knows."""
seldom = st.sampled_from([False] * 9 + [True])


@st.composite
def odd_numbers(draw: Any, steps: int) -> list[pb.Tensor]:
    """Mostly what `growth` takes."""
    number = draw(mostly(st.just(finite), st.just(numbers)))
    level, push = (draw(st.lists(number, min_size=n, max_size=n)) for n in (2 * steps, steps))
    right = [floats("level", level), floats("push", push)]
    few = st.sampled_from([right[:1], right[1:], [*right, right[0]], [*right, floats("x", [])], []])
    return draw(st.one_of(st.just(right), st.just(right), few))


@st.composite
def tensors(draw: Any, steps: int) -> list[pb.Tensor]:
    right = st.lists(few_tokens, min_size=steps, max_size=steps).map(lambda values: tokens(*values))
    return draw(st.one_of(right, odd_tensors(steps), odd_numbers(steps)))


# -- whole inputs -------------------------------------------------------------------------------------------------


@st.composite
def sequences(draw: Any, name: str, symbols: int, longest: int, most: int) -> list[pb.Array]:
    """Tokens `[B, T]`, perhaps padded."""
    batch, steps = draw(st.integers(1, most)), draw(st.integers(1, longest))
    token = draw(mostly(st.just(st.integers(0, symbols - 1)), st.just(any_token)))
    rows = draw(st.lists(token, min_size=batch * steps, max_size=batch * steps))
    made = [array(name, np.reshape(rows, (batch, steps)), "<i8")]
    if draw(st.booleans()):
        length = draw(mostly(st.just(st.integers(1, steps)), st.just(st.integers(0, steps + 1))))
        lengths = draw(st.lists(length, min_size=batch, max_size=batch))
        made.append(array("lengths", lengths, "<i4"))
    return made


@st.composite
def forests(draw: Any) -> list[pb.Array]:
    """Nodes and their children, of which some may come later or be none at all."""
    nodes = draw(st.integers(1, 5))
    number = draw(mostly(st.just(finite), st.just(numbers)))
    values = draw(st.lists(number, min_size=nodes * FEATURES, max_size=nodes * FEATURES))
    wrong = draw(seldom)
    children = [
        [draw(st.integers(-1 - wrong, nodes if wrong else node - 1)) for _ in range(CHILDREN)]
        for node in range(nodes)
    ]
    return [
        array("x", np.reshape(values, (nodes, FEATURES)), "<f4"),
        array("children", children, "<i4"),
    ]


RIGHT = {
    "both": sequences("tokens", len(SOURCE), 6, 3),
    "tree": forests(),
    "reads": mostly(
        sequences("source", len(SOURCE), MOST_SOURCE, 1), sequences("source", len(SOURCE), 14, 2)
    ),
}


@st.composite
def odd_arrays(draw: Any, model: str) -> list[pb.Array]:
    """What a model takes whole; anything may be wrong, and often nothing is."""
    made = draw(RIGHT.get(model, st.one_of(list(RIGHT.values()))))
    match draw(st.integers(0, 14)):
        case 0:
            victim = draw(st.sampled_from(made))
            victim.data = damaged(victim.data, draw(wounds))
        case 1:
            del draw(st.sampled_from(made)).shape[:]
        case 2:
            victim = draw(st.sampled_from(made))
            victim.shape[draw(st.integers(0, len(victim.shape) - 1))] = draw(uint64)
        case 3:
            draw(st.sampled_from(made)).shape.append(draw(uint64))
        case 4:
            draw(st.sampled_from(made)).name = draw(st.sampled_from(["", "x", "tokens", "\0"]))
        case 5:
            made.append(draw(st.sampled_from(made)))
    return made


# -- calls --------------------------------------------------------------------------------------------------------

copies = st.lists(st.one_of(st.sampled_from(["c0", "c1", "c2"]), names), max_size=3)
generations = st.builds(
    pb.GenerateRequest,
    session=names,
    prompt=mostly(st.lists(few_tokens, min_size=1, max_size=4), st.lists(any_token, max_size=4)),
    first_index=mostly(st.none(), uint64),
    max_tokens=mostly(st.integers(1, 100), st.sampled_from([0, 1 << 17])),
    temperature=mostly(st.sampled_from([None, 0.0, 0.5, 2.0]), reals),
    top_k=uint32,
    top_p=mostly(st.one_of(st.none(), st.floats(0, 1, allow_subnormal=False)), reals),
    seed=uint64,
    stop=mostly(st.lists(few_tokens, max_size=2), st.lists(any_token, max_size=2)),
    request_id=request_ids,
)
steps = st.builds(
    pb.StepRequest,
    session=names,
    first_index=mostly(st.one_of(st.none(), st.just(0)), uint64),
    length=mostly(st.sampled_from([0, 1]), uint32),
    acknowledged=mostly(st.just(0), uint64),
    inputs=tensors(1),
)


@st.composite
def openings(draw: Any) -> pb.OpenRequest:
    model = draw(models)
    is_primed = draw(mostly(st.just(model == "reads"), st.just(model != "reads")))
    return pb.OpenRequest(
        model=model,
        version=draw(mostly(st.just(""), versions)),
        session=draw(st.one_of(names, st.sampled_from(["", "c0", "c1", "c2"]))),
        request_id=draw(request_ids),
        time_to_live_s=draw(ttls),
        priming=draw(odd_arrays(model)) if is_primed else [],
    )


@st.composite
def inferences(draw: Any) -> pb.InferRequest:
    model = draw(mostly(st.sampled_from(list(WHOLE)), models))
    version = draw(mostly(st.sampled_from(["", "1"]), versions))
    return pb.InferRequest(model=model, version=version, inputs=draw(odd_arrays(model)))


listings = st.builds(
    pb.ListSessionsRequest,
    page_size=mostly(small, uint32),
    page_token=st.sampled_from(["", "", "", "x", "=", "\xe9", "AAAAAAAAAAAAAAAAAAAAAA=="]),
    model=models,
    prefix=st.sampled_from(["", "s", "\0"]),
    all_owners=st.booleans(),
)
forks = st.builds(
    pb.ForkRequest,
    session=names,
    count=st.one_of(small, st.just(FORKED)),
    copies=st.one_of(st.just([]), copies),
    request_id=request_ids,
)


@st.composite
def forecasts(draw: Any) -> pb.ForecastRequest:
    """Some steps ahead, of which all inputs are there or those of the first alone."""
    ahead = draw(mostly(st.integers(1, 6), uint32))
    given = st.sampled_from([1, min(ahead, 6), min(ahead, 6)])
    ways = draw(mostly(st.lists(given.flatmap(tensors), min_size=1, max_size=3), st.just([])))
    return pb.ForecastRequest(
        session=draw(names), steps=ahead, scenarios=[pb.Scenario(inputs=way) for way in ways]
    )


NONE = st.none()
CALLS: list[tuple[str, Any, Any]] = [
    ("Step", steps, NONE),
    ("Open", openings(), mostly(NONE, torn())),
    ("Open", st.builds(pb.OpenRequest, model=st.sampled_from(list(KINDS)), session=names), torn()),
    ("Fork", forks, NONE),
    ("Snapshot", st.builds(pb.SnapshotRequest, session=names), NONE),
    ("Restore", st.builds(pb.RestoreRequest, session=names, request_id=request_ids), torn()),
    ("Describe", st.builds(pb.DescribeRequest, session=names), NONE),
    ("ListSessions", listings, NONE),
    ("Touch", st.builds(pb.TouchRequest, session=names), NONE),
    ("Close", st.builds(pb.CloseRequest, session=names, request_id=request_ids), NONE),
    ("Generate", generations, NONE),
    ("Forecast", forecasts(), NONE),
    ("Infer", inferences(), NONE),
    ("ListModels", st.just(pb.ListModelsRequest()), NONE),
    ("LoadModel", st.builds(pb.LoadModelRequest, name=models, version=versions), NONE),
    ("UnloadModel", st.builds(pb.UnloadModelRequest, name=models, version=versions), NONE),
]
"""Methods, what is asked, and a snapshot that goes along."""
METHODS = sorted({method for method, *_ in CALLS})

calls = st.one_of([st.builds(Call, st.just(method), *parts, seldom) for method, *parts in CALLS])
unreadable = st.builds(Call, st.sampled_from(METHODS), st.binary(max_size=40), NONE, seldom)


@st.composite
def races(draw: Any) -> list[Call]:
    """Right calls about one session, which ends and begins again as one of another model, or of other weights."""
    session, name = draw(st.sampled_from(["s0", "p0", "g0"])), draw(st.sampled_from(list(KINDS)))
    way = pb.Scenario(inputs=KINDS[name].step(0))
    right = [
        Call("Open", pb.OpenRequest(model=name, session=session, priming=KINDS[name].priming)),
        Call("Open", pb.OpenRequest(model=name), Torn(name)),
        Call("Close", pb.CloseRequest(session=session)),
        Call("Fork", pb.ForkRequest(session=session, count=2)),
        Call("Forecast", pb.ForecastRequest(session=session, steps=1, scenarios=[way])),
        Call("Snapshot", pb.SnapshotRequest(session=session)),
        Call("Restore", pb.RestoreRequest(session=session), Torn(name)),
        Call("Step", pb.StepRequest(session=session, inputs=KINDS[name].step(0))),
        *(Call("LoadModel", pb.LoadModelRequest(name="tiny", version=version)) for version in "123"),
    ]
    return draw(st.lists(st.sampled_from(right), min_size=4, max_size=8))


@st.composite
def requests(draw: Any) -> list[list[Call]]:
    """Calls; those of one list go together."""
    together = st.lists(mostly(calls, unreadable), max_size=4)
    return draw(st.lists(st.one_of(together, races()), max_size=3))
