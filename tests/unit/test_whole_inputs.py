"""Whole inputs: whatever comes is refused, or keeps every promise that the graph relies on."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carousel.contract import Contract, Port, Signature, layout_hash
from carousel.wire import carousel_pb2 as pb
from carousel.wire.frames import NUMPY
from service.errors import InvalidInputError
from service.whole_inputs import answer_bytes, whole_inputs

MOST, ALL = 4, 6
"""Steps of one sequence, or nodes; steps of all sequences."""


def contract(inputs: tuple[Port, ...], output: Port, lengths: str) -> Contract:
    return Contract(
        format=3,
        kind="whole",
        task="test",
        recurrence="test",
        inputs=inputs,
        outputs=(output,),
        lengths=lengths,
        planes=(),
        segments=(),
        max_steps=MOST,
        invariant=False,
        signature=Signature(layout=layout_hash("test", inputs, (output,), (), ()), lineage="test"),
    )


SEQUENCES = contract(
    (
        Port(name="token", dtype="int64", vocabulary=("a", "b", "c")),
        Port(name="flag", dtype="bool"),
        Port(name="x", dtype="float32", shape=(2,)),
        Port(name="whole", dtype="uint8", axes=("batch",)),
    ),
    Port(name="y", dtype="float64", shape=(3,)),
    "lengths",
)
TREES = contract(
    (
        Port(name="x", dtype="float32", axes=("node",)),
        Port(name="children", dtype="int32", shape=(2,), axes=("node",), earlier_nodes=True),
    ),
    Port(name="y", dtype="float32", axes=("node",)),
    "",
)
numbers = st.sampled_from([float("nan"), float("inf"), *range(-2, 5)])


@st.composite
def arrays(draw: Any, sizes: dict[str, int], port: Port) -> pb.Array:
    """Values of a port that are right, or not far from it."""
    shape = [*(sizes[axis] for axis in port.axes), *port.shape]
    count = int(np.prod(shape))
    if draw(st.integers(0, 4)):
        drawn = np.full(count, -1 if port.earlier_nodes else 1, float)
    else:
        drawn = np.array(draw(st.lists(numbers, min_size=count, max_size=count)), float)
    with np.errstate(invalid="ignore"):
        data = drawn.astype(NUMPY[port.dtype]).tobytes()
    return pb.Array(name=port.name, shape=shape, data=data)


@st.composite
def messages(draw: Any, of: Contract) -> list[pb.Array]:
    """A message of which at most one thing besides its numbers is wrong."""
    sizes = {axis: draw(st.integers(1, 3)) for axis in ("batch", "time", "node")}
    lengths = Port(name="lengths", dtype="int32", axes=("batch",))
    ports = [*of.inputs, lengths] if of.lengths and draw(st.booleans()) else list(of.inputs)
    sent = [draw(arrays(sizes, port)) for port in ports]
    chosen = draw(st.sampled_from(sent))
    match draw(st.integers(0, 9)):
        case 0:
            sent.remove(chosen)
        case 1:
            sent.append(chosen)
        case 2:
            chosen.name = draw(st.sampled_from(["other", ""]))
        case 3:
            chosen.data = chosen.data[: draw(st.integers(0, 9))]
        case 4:
            chosen.shape[:] = draw(
                st.lists(st.sampled_from([0, 1, 2, 5, 1 << 63, (1 << 64) - 1]), max_size=4)
            )
        case 5:
            axis = draw(st.sampled_from(sorted(sizes)))
            sent = [
                draw(arrays({**sizes, axis: draw(st.sampled_from([0, 4, 5, 7]))}, port)) for port in ports
            ]
        case 6:
            axis = draw(st.sampled_from(sorted(sizes)))
            sent[0] = draw(arrays({**sizes, axis: sizes[axis] + 1}, ports[0]))
    return list(draw(st.permutations(sent)))


def taken(of: Contract, sent: list[pb.Array]) -> Any:
    try:
        return whole_inputs(of, sent, ALL)
    except InvalidInputError:
        return None


@given(messages(SEQUENCES))
def test_sequences_that_are_taken_fit_their_contract(sent: list[pb.Array]) -> None:
    if (inputs := taken(SEQUENCES, sent)) is None:
        return
    found, batch, steps = inputs.arrays, inputs.sizes["batch"], inputs.sizes["time"]
    assert batch >= 1
    assert 1 <= steps <= MOST
    assert inputs.steps == batch * steps <= ALL
    assert list(found) == ["token", "flag", "x", "whole", "lengths"]
    assert {name: str(array.dtype) for name, array in found.items()} == {
        "token": "int64",
        "flag": "bool",
        "x": "float32",
        "whole": "uint8",
        "lengths": "int32",
    }
    assert found["token"].shape == found["flag"].shape == (batch, steps)
    assert (found["x"].shape, found["whole"].shape) == ((batch, steps, 2), (batch,))
    assert found["lengths"].shape == (batch,)
    assert 1 <= found["lengths"].min() <= found["lengths"].max() <= steps
    assert 0 <= found["token"].min() <= found["token"].max() < 3
    assert np.isfinite(found["x"]).all()
    assert answer_bytes(SEQUENCES, inputs.sizes) == batch * steps * 3 * 8


@given(messages(TREES))
def test_trees_that_are_taken_have_children_before_their_parents(sent: list[pb.Array]) -> None:
    if (inputs := taken(TREES, sent)) is None:
        return
    children = inputs.arrays["children"]
    assert 1 <= len(children) == inputs.steps <= MOST
    assert children.shape == (len(children), 2)
    assert all(-1 <= child < node for node, row in enumerate(children.tolist()) for child in row)
    assert inputs.arrays["x"].shape == (len(children),)


@pytest.mark.parametrize("steps", [1, MOST])
def test_what_is_right_is_taken(steps: int) -> None:
    sequences = [
        pb.Array(name="token", shape=[1, steps], data=bytes(8 * steps)),
        pb.Array(name="flag", shape=[1, steps], data=bytes(steps)),
        pb.Array(name="x", shape=[1, steps, 2], data=bytes(8 * steps)),
        pb.Array(name="whole", shape=[1], data=b"\xff"),
    ]
    assert whole_inputs(SEQUENCES, sequences, ALL).arrays["lengths"].tolist() == [steps]
    children = np.stack([np.arange(-1, steps - 1), np.full(steps, -1)], axis=1).astype("<i4")
    trees = [
        pb.Array(name="children", shape=[steps, 2], data=children.tobytes()),
        pb.Array(name="x", shape=[steps], data=bytes(4 * steps)),
    ]
    assert whole_inputs(TREES, trees, ALL).sizes == {"node": steps}
