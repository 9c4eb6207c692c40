"""Records of arrays: what was written comes back, damage is found out, and no size is believed."""

import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xxhash import xxh3_64

from carousel.wire.frames import NUMPY
from service.records import Arrays, read_record, write_record


def written(path: Path, *records: Arrays) -> bytes:
    with path.open("wb") as file:
        for arrays in records:
            write_record(file, arrays)
    return path.read_bytes()


def read(path: Path, content: bytes) -> Arrays:
    path.write_bytes(content)
    with path.open("rb") as file:
        return read_record(file)


def made_by_somebody(head: Any, data: bytes = b"") -> bytes:
    """A record with the right digest, whatever its head says."""
    text = json.dumps(head).encode()
    body = struct.pack("<QQ", len(text), len(data)) + text + data
    return body + xxh3_64(body).digest()


def test_arrays_of_every_type_and_any_size_come_back_one_record_after_the_other(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    records = [
        {
            name: rng.integers(0, 2, shape).astype(kind)
            for name, kind in NUMPY.items()
            for shape in [(3, 5)[:axes] if axes else (0, 7)]
        }
        for axes in range(3)
    ]
    records.append({"turned": np.arange(12).reshape(3, 4).T, "every other": np.arange(9)[::2]})
    written(tmp_path / "f", *records, {})
    with (tmp_path / "f").open("rb") as file:
        for arrays in records:
            again = read_record(file)
            assert list(again) == list(arrays)
            for name, array in arrays.items():
                assert again[name].dtype == array.dtype
                np.testing.assert_array_equal(again[name], array, strict=True)
        assert read_record(file) == {}
        assert file.read() == b""


def test_a_record_that_is_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = written(tmp_path / "f", {"a": np.arange(3), "b": np.arange(5, dtype="u1")})
    for length in range(len(whole)):
        with pytest.raises(EOFError, match="it ends too early"):
            read(tmp_path / "f", whole[:length])
    assert read(tmp_path / "f", whole)["b"].tolist() == [0, 1, 2, 3, 4]


def test_a_record_with_any_bit_turned_is_refused(tmp_path: Path) -> None:
    whole = written(tmp_path / "f", {"a": np.arange(3), "b": np.arange(5, dtype="u1")})
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises((ValueError, EOFError), match=r"it ends too early|it is damaged"):
            read(tmp_path / "f", bytes(damaged))


@pytest.mark.parametrize("lengths", [(1 << 50, 0), (0, 1 << 50), ((1 << 64) - 1, (1 << 64) - 1), (9, 9)])
def test_a_record_that_says_it_is_longer_than_its_file_costs_nothing(
    tmp_path: Path, lengths: tuple[int, int]
) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(EOFError, match="bytes are missing"):
            read(tmp_path / "f", struct.pack("<QQ", *lengths) + bytes(17))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "head",
    [
        [["a", "<i8", [1 << 60]]],
        [["a", "<i8", [1 << 90]]],
        [["a", "<i8", [0, 1 << 90]]],
        [["a", "<i8", [-1, -1]]],
        [["a", "<i8", ["2"]]],
        [["a", "<i8", [3]]],
        [["a", "|O", [2]]],
        [["a", "<i8,<i8", [1]]],
        [["a", {}, [1]]],
        [["a", "<i8"]],
        [[["a"], "<i8", [2]]],
        {"a": 1},
        7,
        None,
    ],
)
def test_a_head_that_means_nothing_is_refused_though_its_digest_is_right(
    tmp_path: Path, head: object
) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="it is none of ours"):
            read(tmp_path / "f", made_by_somebody(head, bytes(16)))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert read(tmp_path / "f", made_by_somebody([["a", "<i8", [2]]], bytes(16)))["a"].tolist() == [0, 0]
