import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carousel.contract import DType, Port
from carousel.wire.carousel_pb2 import StepFrame, Tensor
from carousel.wire.frames import NUMPY, FrameError, columns, pack, unpack

PAIR = Port(name="pair", dtype="float32", shape=(2,))
TOKEN = Port(name="token", dtype="int64")
FLAG = Port(name="flag", dtype="bool")


def array_of(port: Port, rows: int, seed: int = 0) -> np.ndarray:
    raw = np.random.default_rng(seed).integers(0, 2, (rows, *port.shape))
    return raw.astype(NUMPY[port.dtype])


@given(
    dtypes=st.lists(st.sampled_from(list(NUMPY)), min_size=1, max_size=4),
    shape=st.lists(st.integers(1, 3), max_size=3).map(tuple),
    rows=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_what_is_packed_comes_out_again(
    dtypes: list[DType], shape: tuple[int, ...], rows: int, seed: int
) -> None:
    ports = [Port(name=f"port{k}", dtype=dtype, shape=shape) for k, dtype in enumerate(dtypes)]
    arrays = [array_of(port, rows, seed + k) for k, port in enumerate(ports)]
    frame = StepFrame()
    pack(ports, arrays, frame.inputs)
    frame = StepFrame.FromString(frame.SerializeToString())
    for port, array, found in zip(ports, arrays, unpack(ports, frame.inputs, rows), strict=True):
        assert found.dtype == NUMPY[port.dtype]
        np.testing.assert_array_equal(found, array)


def test_the_wire_is_row_major_and_little_endian() -> None:
    frame = StepFrame()
    pack([PAIR], [np.asfortranarray(np.array([[1, 2], [3, 4]], np.float32))], frame.inputs)
    assert frame.inputs[0].data == np.array([1, 2, 3, 4], "<f4").tobytes()


def test_unpacking_copies_nothing_and_gives_read_only_arrays() -> None:
    blob = np.zeros(2, "<f4").tobytes()
    tensor = Tensor(name="pair", data=blob)
    (array,) = unpack([PAIR], [tensor], 1)
    assert not array.flags.writeable
    assert not array.flags.owndata


def test_tensors_may_come_in_any_order() -> None:
    frame = StepFrame()
    pack([TOKEN, PAIR], [array_of(TOKEN, 3), array_of(PAIR, 3)], frame.inputs)
    pair, token = unpack([PAIR, TOKEN], frame.inputs, 3)
    assert pair.shape == (3, 2)
    assert token.shape == (3,)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ([np.zeros((1, 2))], "pair: expected float32 [N, 2], came float64 [1, 2]"),
        ([np.zeros((1, 3), np.float32)], "pair: expected float32 [N, 2], came float32 [1, 3]"),
        ([np.zeros((), np.float32)], "pair: expected float32 [N, 2], came float32 []"),
        ([], "expected 1 tensors (pair), came 0"),
    ],
)
def test_packing_says_what_was_expected_and_what_came(arrays: list[np.ndarray], words: str) -> None:
    frame = StepFrame()
    with pytest.raises(FrameError) as caught:
        pack([PAIR], arrays, frame.inputs)
    assert str(caught.value) == words
    assert not frame.inputs


def test_packing_refuses_tensors_of_unequal_length() -> None:
    with pytest.raises(FrameError, match="as many steps in every tensor"):
        pack([PAIR, TOKEN], [array_of(PAIR, 2), array_of(TOKEN, 3)], StepFrame().inputs)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ([], "pair: the tensor is missing"),
        ([Tensor(name="pair", data=bytes(24))] * 2, "pair: the tensor is given twice"),
        (
            [Tensor(name="pair", data=bytes(24)), Tensor(name="odd")],
            "odd: unknown tensor, expected pair",
        ),
        ([Tensor(name="pair", data=bytes(23))], "pair: expected 3 x [2] x float32 = 24 bytes, came 23"),
    ],
)
def test_unpacking_says_what_was_expected_and_what_came(tensors: list[Tensor], words: str) -> None:
    with pytest.raises(FrameError) as caught:
        unpack([PAIR], tensors, 3)
    assert str(caught.value) == words


def test_a_number_of_rows_that_no_memory_holds_is_refused_before_anything_is_made() -> None:
    with pytest.raises(FrameError, match="came 8"):
        unpack([PAIR], [Tensor(name="pair", data=bytes(8))], 1 << 60)


def test_a_bool_is_0_or_1_on_the_wire() -> None:
    (array,) = unpack([FLAG], [Tensor(name="flag", data=b"\x00\x01")], 2)
    assert array.tolist() == [False, True]
    with pytest.raises(FrameError, match="expected bytes 0 and 1 for bool"):
        unpack([FLAG], [Tensor(name="flag", data=b"\x00\x02")], 2)


def test_columns_come_out_as_lists() -> None:
    frame = StepFrame(handles=[4, 2], first_indices=[7, 0], lengths=[1, 3], acknowledged=[6, 0])
    assert columns(frame) == ([4, 2], [7, 0], [1, 3], [6, 0])


def test_absent_columns_mean_one_step_each_not_numbered_nothing_acknowledged() -> None:
    assert columns(StepFrame(handles=[4, 2])) == ([4, 2], None, [1, 1], None)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (StepFrame(), "handles: expected at least one chunk, came none"),
        (StepFrame(handles=[1, 2], lengths=[1]), "lengths: expected 2 entries, one for each handle, came 1"),
        (StepFrame(handles=[1], first_indices=[1, 2]), "first_indices: expected 1 entries"),
        (StepFrame(handles=[1], acknowledged=[1, 2]), "acknowledged: expected 1 entries"),
        (StepFrame(handles=[1, 2], lengths=[1, 0]), "lengths: expected 1 step or more, came 0 at position 1"),
    ],
)
def test_columns_that_do_not_fit_together_are_refused(frame: StepFrame, words: str) -> None:
    with pytest.raises(FrameError) as caught:
        columns(frame)
    assert str(caught.value).startswith(words)
