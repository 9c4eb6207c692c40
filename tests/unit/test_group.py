"""Nothing that breaks the contract gets past the columns of a group, and what does get past is what was sent."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from carousel.contract import Contract, Port
from carousel.wire.carousel_pb2 import Tensor
from carousel.wire.frames import NUMPY
from service.cohort import Answers
from service.errors import InvalidInputError, ServiceError
from service.group import Columns, Group, blobs_of, digests_of, mistakes_of
from tests.fakes import contract

PAIR = (Port(name="a", dtype="float32", shape=(2,)), Port(name="b", dtype="float32", shape=(2,)))
BEYOND = 1 << 64
LARGEST = (1 << 63) - 1


class Nobody:
    """A caller that is only known by name."""

    def __init__(self) -> None:
        self.left = False
        self.waits: list[Any] = []

    def answered(self, answers: Answers) -> None:
        raise AssertionError

    def refused(self, position: int, error: ServiceError) -> None:
        raise AssertionError

    def gone(self, position: int) -> ServiceError:
        raise AssertionError


def with_inputs(*ports: Port) -> Contract:
    # The layout hash does not matter here: nothing but the ports is looked at.
    return contract().model_copy(update={"inputs": ports})


def add(group: Group, arrays: Sequence[np.ndarray], lengths: list[int], **columns: Any) -> Nobody:
    """Add a frame; its chunks are of slots 0, 1, ... if nothing else is said."""
    caller, count = Nobody(), len(lengths)
    slots = columns.get("slots", list(range(count)))
    serials = columns.get("serials", [slot + 1 for slot in slots])
    firsts = columns.get("firsts", [0] * count)
    group.add(
        caller, slots, serials, firsts, lengths, columns.get("acknowledged"), [a.tobytes() for a in arrays]
    )
    return caller


def columns_of(ports: Sequence[Port], arrays: Sequence[np.ndarray], lengths: list[int]) -> Columns:
    group = Group()
    add(group, arrays, lengths)
    return Columns(group, with_inputs(*ports))


def inputs_of(columns: Columns, position: int) -> tuple[np.ndarray, ...]:
    """What a run of this chunk alone is given, without the axis of its one member."""
    return tuple(array[0] for array in columns.at(np.array([position])).batched)


def digest(*arrays: np.ndarray) -> int:
    (found,) = columns_of(PAIR, arrays, [len(arrays[0])]).digests.tolist()
    return found


def one_number_changed(arrays: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
    for port, array in enumerate(arrays):
        for place in np.ndindex(array.shape):
            changed = [one.copy() for one in arrays]
            changed[port][place] += 1
            yield changed


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_the_digest_covers_every_number_of_every_step_of_every_input() -> None:
    arrays = [values(3, 2), values(3, 2, seed=1)]
    assert digest(*arrays) == digest(*[array.copy() for array in arrays])
    changed = [digest(*one) for one in one_number_changed(arrays)]
    assert len({digest(*arrays), *changed}) == 1 + 12
    assert digest(*arrays) != digest(*arrays[::-1])


def test_the_digest_does_not_depend_on_the_frame_around_the_chunk() -> None:
    a, b = values(9, 2), values(9, 2, seed=1)
    alone = digest(a[4:6], b[4:6])
    for lengths, position in (([4, 2, 3], 1), ([3, 1, 2, 3], 2)):
        assert columns_of(PAIR, [a, b], lengths).digests[position] == alone
        assert digests_of([a.tobytes(), b.tobytes()], lengths)[position] == alone
    group = Group()
    for part in (slice(4), slice(4, 6), slice(6, 9)):
        add(group, [a[part], b[part]], [part.stop - (part.start or 0)])
    assert Columns(group, with_inputs(*PAIR)).digests[1] == alone


def test_chunks_get_their_own_steps_and_columns_in_order() -> None:
    a, b = values(6, 2), values(6, 2, seed=1)
    group = Group()
    first = add(group, [a[:4], b[:4]], [1, 3], slots=[5, 2], firsts=[7, 0], acknowledged=[5, 0])
    second = add(group, [a[4:], b[4:]], [2], slots=[9], firsts=[3], acknowledged=[2])
    columns = Columns(group, with_inputs(*PAIR))
    assert len(columns) == 3
    assert columns.lengths == [1, 3, 2]
    assert columns.slots.tolist() == [5, 2, 9]
    assert columns.serials.tolist() == [6, 3, 10]
    assert columns.firsts.tolist() == [7, 0, 3]
    assert columns.acknowledged.tolist() == [5, 0, 2]
    assert columns.owners == [(first, 0), (first, 1), (second, 0)]
    for position, steps in enumerate((slice(0, 1), slice(1, 4), slice(4, 6))):
        for sent, got in zip((a, b), inputs_of(columns, position), strict=True):
            np.testing.assert_array_equal(got, sent[steps])


def test_chunks_of_one_length_are_a_batch_as_they_came() -> None:
    a, b = values(6, 2), values(6, 2, seed=1)
    columns = columns_of(PAIR, [a, b], [2, 2, 2])
    assert columns.uniform
    assert columns.length == 2
    for sent, got in zip((a, b), columns.batched, strict=True):
        np.testing.assert_array_equal(got, sent.reshape(3, 2, 2))
    some = columns.at(np.array([2, 0]))
    for sent, got in zip((a, b), some.batched, strict=True):
        np.testing.assert_array_equal(got, sent.reshape(3, 2, 2)[[2, 0]])
    assert some.digests.tolist() == columns.digests[[2, 0]].tolist()
    assert not columns_of(PAIR, [a, b], [2, 1, 3]).uniform


def test_whoever_sent_a_frame_waits_for_its_chunks_at_their_positions_in_it() -> None:
    group = Group()
    x = np.zeros(1, np.float32)
    one = add(group, [np.zeros(2, np.float32)], [1, 1], slots=[0, 1])
    two = add(group, [x], [1], slots=[2])
    columns = Columns(group, contract())
    assert [(s.caller, list(s.positions), s.start, s.stop) for s in columns.segments] == [
        (one, [0, 1], 0, 2),
        (two, [0], 2, 3),
    ]
    part = columns.at(np.array([1, 2]))
    assert [(s.caller, s.positions, s.start, s.stop) for s in part.segments] == [
        (one, [1], 0, 1),
        (two, [0], 1, 2),
    ]


def test_a_client_may_number_its_steps_or_not_and_acknowledge_or_not() -> None:
    group = Group()
    x = np.zeros(2, np.float32)
    add(group, [x], [1, 1], firsts=[0, 4], acknowledged=[0, 4])
    assert Columns(group, contract()).numbered is None
    add(group, [x], [1, 1], slots=[2, 3], firsts=None)
    columns = Columns(group, contract())
    assert columns.numbered is not None
    assert columns.numbered.tolist() == [True, True, False, False]
    assert columns.acknowledged.tolist() == [0, 4, 0, 0]


def test_it_is_known_whether_a_session_is_in_a_group_twice() -> None:
    group = Group()
    add(group, [np.zeros(2, np.float32)], [1, 1])
    assert Columns(group, contract()).distinct
    add(group, [np.zeros(1, np.float32)], [1], slots=[1])
    assert not Columns(group, contract()).distinct


def test_an_index_of_64_bits_is_taken_for_one_that_no_session_reaches() -> None:
    group = Group()
    x = np.zeros(3, np.float32)
    add(group, [x], [1] * 3, firsts=[LARGEST, LARGEST + 1, BEYOND - 1], acknowledged=[BEYOND - 1, 5, LARGEST])
    columns = Columns(group, contract())
    assert columns.numbered is None
    assert columns.firsts.tolist() == [LARGEST] * 3
    assert columns.acknowledged.tolist() == [LARGEST, 5, LARGEST]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("port", [0, 1])
def test_a_number_that_is_not_finite_refuses_its_own_chunk_only(dtype: str, bad: float, port: int) -> None:
    ports = tuple(Port(name=name, dtype=dtype, shape=(2,)) for name in "ab")
    arrays = [values(6, 2).astype(NUMPY[dtype]) for _ in ports]
    arrays[port][3, 1] = bad
    columns = columns_of(ports, arrays, [2, 3, 1])
    assert said(columns) == {1: f"{'ab'[port]}: expected finite numbers, got {bad}"}
    for position, rows in ((0, slice(2)), (2, slice(5, 6))):
        for array, got in zip(arrays, inputs_of(columns, position), strict=True):
            np.testing.assert_array_equal(got, array[rows])


@pytest.mark.parametrize("largest", [np.finfo(np.float32).max, 1e30])
def test_numbers_too_large_to_be_squared_are_taken(largest: float) -> None:
    assert not said(columns_of(PAIR, [np.full((2, 2), largest, np.float32)] * 2, [1, 1]))


@pytest.mark.parametrize(
    ("dtype", "bad"),
    [("uint8", [3, 255]), ("int8", [-1, 3, -128]), ("int32", [-1, 3]), ("int64", [-1, 3, 1 << 40])],
)
def test_a_token_outside_the_vocabulary_refuses_its_own_chunk_only(dtype: str, bad: list[int]) -> None:
    port = Port(name="token", dtype=dtype, vocabulary=("x", "y", "z"))
    for token in bad:
        tokens = np.array([0, 1, 2, token, 2], NUMPY[dtype])
        columns = columns_of((port,), [tokens], [3, 1, 1])
        assert said(columns) == {1: f"token: expected tokens 0 to 2, got {token}"}
        assert inputs_of(columns, 0)[0].tolist() == [0, 1, 2]
        assert inputs_of(columns, 2)[0].tolist() == [2]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64"])
def test_integers_without_a_vocabulary_take_any_value(dtype: str) -> None:
    limits = np.iinfo(NUMPY[dtype])
    array = np.array([limits.min, limits.max], NUMPY[dtype])
    columns = columns_of((Port(name="n", dtype=dtype),), [array], [2])
    assert not said(columns)
    assert inputs_of(columns, 0)[0].tolist() == [limits.min, limits.max]


def test_a_vocabulary_on_a_float_port_names_places_and_bounds_no_numbers() -> None:
    port = Port(name="weights", dtype="float32", shape=(2,), vocabulary=("x", "y"))
    assert not said(columns_of((port,), [np.array([[-7.5, 99]], np.float32)], [1]))


@pytest.mark.parametrize("byte", [2, 128, 255])
def test_a_bool_byte_other_than_0_and_1_refuses_its_own_chunk_only(byte: int) -> None:
    port = Port(name="flag", dtype="bool")
    columns = columns_of((port,), [np.array([0, 1, 1, byte, 0], np.uint8)], [2, 2, 1])
    assert said(columns) == {1: "flag: expected bytes 0 and 1 for bool, came others"}
    assert inputs_of(columns, 0)[0].tolist() == [False, True]
    assert inputs_of(columns, 2)[0].tolist() == [False]


def test_of_several_mistakes_in_a_chunk_the_first_input_is_named() -> None:
    bad = np.full((1, 2), np.nan, np.float32)
    assert list(mistakes_of(with_inputs(*PAIR), [bad, bad], [1])) == [0]
    assert said(columns_of(PAIR, [bad, bad], [1]))[0].startswith("a: ")


TENSORS = {
    "missing": ({"a": 16}, "b: the tensor is missing"),
    "unknown": ({"a": 16, "b": 16, "c": 16}, "c: unknown tensor, expected a, b"),
    "too short": ({"a": 16, "b": 15}, "b: expected 2 x [2] x float32 = 16 bytes, came 15"),
    "too long": ({"a": 24, "b": 16}, "a: expected 2 x [2] x float32 = 16 bytes, came 24"),
}


@pytest.mark.parametrize("what", TENSORS)
def test_blobs_that_do_not_fit_the_contract_refuse_the_frame(what: str) -> None:
    sizes, message = TENSORS[what]
    with pytest.raises(InvalidInputError) as caught:
        blobs_of(PAIR, [Tensor(name=name, data=bytes(size)) for name, size in sizes.items()], 2)
    assert str(caught.value) == message


def test_a_tensor_given_twice_refuses_the_frame() -> None:
    tensors = [Tensor(name=name, data=bytes(16)) for name in "aba"]
    with pytest.raises(InvalidInputError, match="a: the tensor is given twice"):
        blobs_of(PAIR, tensors, 2)


def test_blobs_are_in_the_order_of_the_contract_whatever_the_order_of_the_message() -> None:
    tensors = [Tensor(name="b", data=b"b" * 16), Tensor(name="a", data=b"a" * 16)]
    assert blobs_of(PAIR, tensors, 2) == [b"a" * 16, b"b" * 16]


def test_a_small_chunk_of_a_big_frame_does_not_hold_the_frame_in_memory() -> None:
    port = Port(name="x", dtype="float32", shape=(64,))
    columns = columns_of((port,), [values(4097, 64)], [1, 4096])
    (small,) = columns.at(np.array([0])).batched
    assert held_bytes(small) == small.nbytes == 256


def said(columns: Columns) -> dict[int, str]:
    """What is wrong with which chunk."""
    return {position: str(mistake) for position, mistake in columns.mistakes.items()}


def held_bytes(array: np.ndarray) -> int:
    """Bytes that stay in memory as long as the array does."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.nbytes if array.base is None else len(memoryview(array.base).cast("B"))
