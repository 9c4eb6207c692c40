"""What is said on a stream: frames of every kind, right ones among them, and bytes that are none."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from carousel.wire import carousel_pb2 as pb
from tests.fuzz.beside import SESSIONS
from tests.whole import TARGET
from tests.wire import V, attach, steps


def mostly(right: Any, wrong: Any) -> Any:
    """One wrong part makes the whole wrong, so there must not be many. `one_of` takes equal strategies for one."""
    return st.sampled_from([right] * 5 + [wrong]).flatmap(lambda chosen: chosen)


small = st.integers(0, 6)
names = mostly(st.sampled_from(list(SESSIONS)), st.sampled_from(["c0", "c1", "nobody", "", "\n", "x" * 500]))
uint32 = st.one_of(small, st.integers(0, 2**32 - 1))
uint64 = st.one_of(small, st.integers(0, 2**64 - 1), st.sampled_from([2**63 - 1, 2**63, 2**64 - 1]))
right_token = st.integers(0, V - 1)
any_token = mostly(right_token, st.sampled_from([V, -1, 2**63 - 1, -(2**63)]))
attaches = st.lists(names, max_size=4).map(lambda ids: pb.StreamRequest(attach=pb.Attach(sessions=ids)))
wounds = st.lists(
    st.tuples(st.integers(0, 1 << 16), st.integers(0, 4), st.binary(max_size=4)), min_size=1, max_size=4
)
"""Where bytes are damaged, how many are lost there, and what is put in."""

ATTACHED = ("s0", "s1", "s2", "p0")
"""Of two models: the last reads a source, and knows fewer tokens."""


def damaged(message: bytes, wounds: list[tuple[int, int, bytes]]) -> bytes:
    """Some bytes changed, lost or put in."""
    changed = bytearray(message)
    for place, lost, put in wounds:
        start = place % (len(changed) + 1)
        changed[start : start + lost] = put
    return bytes(changed)


@st.composite
def right_frames(draw: Any, tails: list[int]) -> pb.StreamRequest:
    """The next chunks of some sessions of one model, as they are attached with handles from 0."""
    first, *others = draw(st.lists(st.sampled_from(range(len(tails))), min_size=1, max_size=6))
    reads = ATTACHED[first] == "p0"
    handles = [handle for handle in (first, *others) if (ATTACHED[handle] == "p0") == reads]
    token = st.integers(0, (len(TARGET) if reads else V) - 1)
    firsts, chunks, acknowledged = [], [], list(tails)
    for handle in handles:
        chunks.append(draw(st.lists(token, min_size=1, max_size=4)))
        firsts.append(tails[handle])
        tails[handle] += len(chunks[-1])
    received = draw(st.sampled_from([[], [0] * len(handles), [acknowledged[handle] for handle in handles]]))
    return steps(handles, firsts, chunks, received)


@st.composite
def odd_frames(draw: Any) -> pb.StreamRequest:
    """A frame of which anything may be wrong, and often little is."""
    handles = draw(st.lists(mostly(small, uint32), max_size=6))
    count = len(handles)
    column = st.one_of(st.just([]), st.lists(uint64, min_size=count, max_size=count))
    few = st.lists(st.integers(1, 4), min_size=count, max_size=count)
    lengths = draw(mostly(st.one_of(st.just([]), few), st.lists(uint32, max_size=6)))
    return pb.StreamRequest(
        steps=pb.StepFrame(
            handles=handles,
            first_indices=draw(mostly(column, st.lists(small, max_size=6))),
            lengths=lengths,
            acknowledged=draw(column),
            inputs=draw(odd_tensors(min(sum(lengths or [1] * count), 64))),
        )
    )


@st.composite
def odd_tensors(draw: Any, count: int) -> list[pb.Tensor]:
    """Mostly one tensor of `count` tokens."""
    values = draw(st.lists(any_token, min_size=count, max_size=count))
    whole = pb.Tensor(name="tokens", data=np.array(values, "<i8").tobytes())
    other = pb.Tensor(name=draw(st.sampled_from(["", "x", "tokens"])), data=draw(st.binary(max_size=40)))
    few = st.sampled_from([[], [other], [whole, other], [whole, whole]])
    return draw(mostly(st.just([whole]), few))


@st.composite
def conversations(draw: Any) -> list[bytes]:
    """A stream that attaches some sessions and goes on well, until it does not."""
    said, tails = [attach(*ATTACHED).SerializeToString()], [0] * len(ATTACHED)
    for kind in draw(st.lists(st.integers(0, 9), max_size=10)):
        if kind < 4:
            said.append(draw(right_frames(tails)).SerializeToString())
        elif kind == 4:
            said.append(draw(st.sampled_from(said)))
        elif kind == 5:
            said.append(draw(attaches).SerializeToString())
        elif kind < 9:
            said.append(draw(odd_frames()).SerializeToString())
        else:
            torn = damaged(draw(st.sampled_from(said)), draw(wounds))
            said.append(draw(st.one_of(st.just(torn), st.binary(max_size=30))))
    return said
