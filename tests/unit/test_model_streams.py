"""Streams: readers side by side on a text closed to a ring."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from model.data.placed import DataError
from model.data.streams import Streams


@given(
    length=st.integers(20, 90), streams=st.integers(1, 5), steps=st.integers(1, 4), number=st.integers(0, 99)
)
def test_every_stream_goes_on_where_its_last_chunk_ended(
    length: int, streams: int, steps: int, number: int
) -> None:
    reader = Streams(torch.arange(length), streams, steps)
    _, expected = reader.chunk(number)
    inputs, _ = reader.chunk(number + 1)
    assert_close(inputs[:, 0], expected[:, -1])


@given(length=st.integers(20, 90), streams=st.integers(1, 5), number=st.integers(0, 99))
def test_targets_are_the_characters_that_follow(length: int, streams: int, number: int) -> None:
    inputs, targets = Streams(torch.arange(length), streams, 4).chunk(number)
    assert_close(targets, (inputs + 1) % length)


@given(
    length=st.integers(20, 90), streams=st.integers(1, 5), stride=st.integers(1, 4), number=st.integers(0, 99)
)
def test_with_a_stride_chunks_overlap(length: int, streams: int, stride: int, number: int) -> None:
    reader = Streams(torch.arange(length), streams, 4, stride)
    (before, _), (after, _) = reader.chunk(number), reader.chunk(number + 1)
    assert_close(after, (before + stride) % length)
    assert_close(after[:, : 4 - stride], before[:, stride:])


def test_streams_begin_at_equal_distances() -> None:
    inputs, _ = Streams(torch.arange(100), 4, 3).chunk(0)
    assert inputs[:, 0].tolist() == [0, 25, 50, 75]


def test_one_round_of_all_streams_reads_every_character_once() -> None:
    reader = Streams(torch.arange(60), streams=5, steps=4)
    read = torch.cat([reader.chunk(number)[0].flatten() for number in range(3)])
    assert sorted(read.tolist()) == list(range(60))


def test_a_text_shorter_than_one_update_is_an_error() -> None:
    with pytest.raises(DataError, match="has 63 characters, 8 streams of 8 steps need 64"):
        Streams(torch.arange(63), 8, 8)
