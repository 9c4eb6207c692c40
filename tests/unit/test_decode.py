"""Nothing that breaks the contract gets past decoding, and what does get past is what was sent."""

from collections.abc import Iterator

import numpy as np
import pytest

from carousel.contract import Contract, Port
from carousel.wire.carousel_pb2 import Tensor
from carousel.wire.frames import NUMPY
from service.decode import decode_steps
from service.errors import InvalidInputError
from service.session import Steps
from tests.fakes import contract

PAIR = (Port(name="a", dtype="float32", shape=(2,)), Port(name="b", dtype="float32", shape=(2,)))


def with_inputs(*ports: Port) -> Contract:
    # The layout hash does not matter here: nothing but the ports is looked at.
    return contract().model_copy(update={"inputs": ports})


def decode(
    ports: tuple[Port, ...], arrays: list[np.ndarray], lengths: list[int]
) -> list[Steps | InvalidInputError]:
    tensors = [
        Tensor(name=port.name, data=array.tobytes()) for port, array in zip(ports, arrays, strict=True)
    ]
    count = len(lengths)
    return decode_steps(with_inputs(*ports), tensors, [None] * count, lengths, [0] * count)


def digest(*arrays: np.ndarray) -> int:
    (steps,) = decode(PAIR, list(arrays), [len(arrays[0])])
    assert isinstance(steps, Steps)
    return steps.digest


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
        chunk = decode(PAIR, [a, b], lengths)[position]
        assert isinstance(chunk, Steps)
        assert chunk.digest == alone
    tensors = [Tensor(name="b", data=b[4:6].tobytes()), Tensor(name="a", data=a[4:6].tobytes())]
    (turned,) = decode_steps(with_inputs(*PAIR), tensors, [None], [2], [0])
    assert isinstance(turned, Steps)
    assert turned.digest == alone


def test_chunks_get_their_own_steps_and_columns_in_order() -> None:
    a, b = values(6, 2), values(6, 2, seed=1)
    tensors = [Tensor(name="a", data=a.tobytes()), Tensor(name="b", data=b.tobytes())]
    chunks = decode_steps(with_inputs(*PAIR), tensors, [7, 0, 3], [1, 3, 2], [5, 0, 2])
    starts = [0, 1, 4]
    for chunk, start, columns in zip(chunks, starts, [(7, 1, 5), (0, 3, 0), (3, 2, 2)], strict=True):
        assert isinstance(chunk, Steps)
        assert (chunk.first, chunk.length, chunk.acknowledged) == columns
        for sent, got in zip((a, b), chunk.inputs, strict=True):
            np.testing.assert_array_equal(got, sent[start : start + chunk.length])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("port", [0, 1])
def test_a_number_that_is_not_finite_refuses_its_own_chunk_only(dtype: str, bad: float, port: int) -> None:
    ports = tuple(Port(name=name, dtype=dtype, shape=(2,)) for name in "ab")
    arrays = [values(6, 2).astype(NUMPY[dtype]) for _ in ports]
    arrays[port][3, 1] = bad
    before, refused, after = decode(ports, arrays, [2, 3, 1])
    assert isinstance(refused, InvalidInputError)
    assert str(refused) == f"{'ab'[port]}: expected finite numbers, got {bad}"
    for chunk, rows in ((before, slice(2)), (after, slice(5, 6))):
        assert isinstance(chunk, Steps)
        for array, got in zip(arrays, chunk.inputs, strict=True):
            np.testing.assert_array_equal(got, array[rows])


@pytest.mark.parametrize(
    ("dtype", "bad"),
    [("uint8", [3, 255]), ("int8", [-1, 3, -128]), ("int32", [-1, 3]), ("int64", [-1, 3, 1 << 40])],
)
def test_a_token_outside_the_vocabulary_refuses_its_own_chunk_only(dtype: str, bad: list[int]) -> None:
    port = Port(name="token", dtype=dtype, vocabulary=("x", "y", "z"))
    for token in bad:
        tokens = np.array([0, 1, 2, token, 2], NUMPY[dtype])
        before, refused, after = decode((port,), [tokens], [3, 1, 1])
        assert isinstance(refused, InvalidInputError)
        assert str(refused) == f"token: expected tokens 0 to 2, got {token}"
        assert isinstance(before, Steps)
        assert isinstance(after, Steps)
        assert before.inputs[0].tolist() == [0, 1, 2]
        assert after.inputs[0].tolist() == [2]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64"])
def test_integers_without_a_vocabulary_take_any_value(dtype: str) -> None:
    limits = np.iinfo(NUMPY[dtype])
    (chunk,) = decode((Port(name="n", dtype=dtype),), [np.array([limits.min, limits.max], NUMPY[dtype])], [2])
    assert isinstance(chunk, Steps)
    assert chunk.inputs[0].tolist() == [limits.min, limits.max]


def test_a_vocabulary_on_a_float_port_names_places_and_bounds_no_numbers() -> None:
    port = Port(name="weights", dtype="float32", shape=(2,), vocabulary=("x", "y"))
    (chunk,) = decode((port,), [np.array([[-7.5, 99]], np.float32)], [1])
    assert isinstance(chunk, Steps)


@pytest.mark.parametrize("byte", [2, 128, 255])
def test_a_bool_byte_other_than_0_and_1_refuses_the_frame(byte: int) -> None:
    port = Port(name="flag", dtype="bool")
    (chunk,) = decode((port,), [np.array([0, 1], np.uint8)], [2])
    assert isinstance(chunk, Steps)
    assert chunk.inputs[0].tolist() == [False, True]
    with pytest.raises(InvalidInputError, match="flag: expected bytes 0 and 1 for bool"):
        decode((port,), [np.array([0, byte], np.uint8)], [1, 1])


def test_a_small_chunk_of_a_big_frame_does_not_hold_the_frame_in_memory() -> None:
    port = Port(name="x", dtype="float32", shape=(64,))
    small, big = decode((port,), [values(4097, 64)], [1, 4096])
    assert isinstance(small, Steps)
    assert isinstance(big, Steps)
    assert held_bytes(small.inputs[0]) == small.inputs[0].nbytes == 256


def held_bytes(array: np.ndarray) -> int:
    """Bytes that stay in memory as long as the array does."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.nbytes if array.base is None else len(memoryview(array.base).cast("B"))
