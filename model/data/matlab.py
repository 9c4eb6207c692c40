"""Cell arrays of numbers in MATLAB's file format of level 5: as much of it as old data sets need.

Nothing in such a file is code, and nothing is read that is not in it. Everything else in the format is refused.

Source: MathWorks, "MAT-File Format", the chapter on level 5.
"""

import struct
import zlib
from collections.abc import Iterator
from math import prod

import numpy as np
from numpy.typing import NDArray

from model.data.placed import DataError

_HEADER_BYTES, _VERSION, _TAG_BYTES = 128, 0x0100, 8
_LARGEST_BYTES = 1 << 28
_MATRIX, _COMPRESSED = 14, 15
_CELL = 1
_NUMBERS = {
    1: "i1",
    2: "u1",
    3: "<i2",
    4: "<u2",
    5: "<i4",
    6: "<u4",
    7: "<f4",
    9: "<f8",
    12: "<i8",
    13: "<u8",
}
"""The format's number of a type, and NumPy's name."""
_CLASSES = range(6, 16)
"""Arrays of plain numbers."""

Array = NDArray[np.generic]


def read_matlab(content: bytes) -> dict[str, list[Array]]:
    """All variables of a file; a plain array is a list of one.

    Args:
        content: The whole file, little-endian.

    Raises:
        DataError: not of this format, cut short, or a variable is neither numbers nor cells of numbers.
    """
    if len(content) < _HEADER_BYTES or content[124:128] != struct.pack("<H", _VERSION) + b"IM":
        raise DataError("expected a MATLAB file of level 5, little-endian")
    found = {}
    try:
        for kind, data in _elements(content[_HEADER_BYTES:]):
            name, arrays = _variable(
                *next(_elements(_inflated(data))) if kind == _COMPRESSED else (kind, data)
            )
            found[name] = arrays
    except (struct.error, zlib.error, ValueError, KeyError, StopIteration) as error:
        raise DataError(f"a damaged MATLAB file: {error!r}") from error
    return found


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and content of the elements that follow each other."""
    place = 0
    while place + _TAG_BYTES <= len(data):
        kind, size = struct.unpack_from("<II", data, place)
        if kind >> 16:  # a small one: its size and content lie in the tag
            kind, size, begin, step = kind & 0xFFFF, kind >> 16, place + 4, _TAG_BYTES
        else:
            padding = 0 if kind == _COMPRESSED else -size % 8
            begin, step = place + _TAG_BYTES, _TAG_BYTES + size + padding
        if begin + size > len(data):
            raise ValueError(f"an element of {size} bytes where {len(data) - begin} are left")
        yield kind, data[begin : begin + size]
        place += step


def _inflated(data: bytes) -> bytes:
    stream = zlib.decompressobj()
    content = stream.decompress(data, _LARGEST_BYTES)
    if not stream.eof:
        raise ValueError(f"more than {_LARGEST_BYTES} bytes, or cut short")
    return content


def _variable(kind: int, data: bytes) -> tuple[str, list[Array]]:
    if kind != _MATRIX:
        raise ValueError(f"expected an array, came type {kind}")
    (_, flags), (_, dims), (_, name), *parts = _elements(data)
    shape = tuple(np.frombuffer(dims, "<i4").tolist())
    form = flags[0]
    if form == _CELL:
        cells = [array for part in parts for array in _variable(*part)[1]]
        if len(cells) != prod(shape):
            raise ValueError(f"{len(cells)} cells, expected {prod(shape)}")
        return name.decode("ascii"), cells
    if form not in _CLASSES or not parts:
        raise ValueError(f"expected numbers or cells, came class {form}")
    stored, numbers = parts[0]
    return name.decode("ascii"), [np.frombuffer(numbers, _NUMBERS[stored]).reshape(shape, order="F")]
