"""Arrays by name, some at a time, one record after the other in one file.

    length of the head 8 | length of the arrays 8 | head, JSON | arrays | XXH3 of all before 8

Numbers are little-endian. The head says name, type and shape of each array; every array begins at a multiple of 8. The
digest finds damage, whoever wrote the file. Nothing is parsed before it is known, and no size is believed: what is read
is never longer than the file. Nothing is unpickled.
"""

import ctypes
import json
import math
import os
import struct
from io import BufferedReader
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64

from carousel.wire.frames import NUMPY

_PREFIX = struct.Struct("<QQ")
_ALIGNMENT = 8
_DIGEST_BYTES = xxh3_64().digest_size
_SYNC_RANGE: Any = getattr(ctypes.CDLL(None), "sync_file_range", None)
if _SYNC_RANGE is not None:  # Linux
    _SYNC_RANGE.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_WRITE = 2
"""`SYNC_FILE_RANGE_WRITE`."""
_KINDS = {kind.str: kind for kind in NUMPY.values()}

Arrays = dict[str, NDArray[Any]]


def write_record(file: IO[bytes], arrays: Arrays) -> None:
    """Append some arrays, of numbers, booleans or bytes.

    Raises:
        OSError: the disk takes no more.
    """
    head = json.dumps([(name, array.dtype.str, array.shape) for name, array in arrays.items()]).encode()
    head += b" " * (-len(head) % _ALIGNMENT)
    parts: list[Any] = []
    for array in arrays.values():
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        parts += [data, bytes(-len(data) % _ALIGNMENT)]
    parts = [_PREFIX.pack(len(head), sum(map(len, parts))), head, *parts]
    digest, start = xxh3_64(), file.tell()
    for part in parts:
        digest.update(part)
        file.write(part)
    file.write(digest.digest())
    _begin_to_sync(file, start)


def _begin_to_sync(file: IO[bytes], start: int) -> None:
    """Let the disk begin with what was written since, and not when all is there. Nothing is waited for or promised."""
    file.flush()
    if _SYNC_RANGE is not None:
        _SYNC_RANGE(file.fileno(), start, file.tell() - start, _WRITE)


def read_record(file: BufferedReader) -> Arrays:
    """What the next `write_record` wrote.

    Raises:
        ValueError: it is damaged, or is none.
        EOFError: the file ends before it does.
        OSError: the disk does not give it.
    """
    left = os.fstat(file.fileno()).st_size - file.tell() - _PREFIX.size - _DIGEST_BYTES
    prefix = file.read(_PREFIX.size)
    lengths = _PREFIX.unpack(prefix) if left >= 0 else (0, 0)
    if sum(lengths) > left:
        raise EOFError(f"it ends too early, {sum(lengths) - left} bytes are missing")
    data = np.empty(sum(lengths), np.uint8)
    file.readinto(data.data)
    digest = xxh3_64(prefix)
    digest.update(data.data)
    if file.read(_DIGEST_BYTES) != digest.digest():
        raise ValueError("it is damaged: its content does not have its digest")
    try:
        return _arrays(data[: lengths[0]].tobytes(), data[lengths[0] :])
    except (ValueError, LookupError, OverflowError, RecursionError, TypeError) as error:
        raise ValueError(f"it is none of ours: {error}") from error


def _arrays(head: bytes, data: NDArray[np.uint8]) -> Arrays:
    """Views of the arrays."""
    arrays, start = Arrays(), 0
    for name, kind, shape in json.loads(head):
        size = math.prod(shape) * _KINDS[kind].itemsize
        arrays[name] = data[start : start + size].view(_KINDS[kind]).reshape(shape)
        start += size + -size % _ALIGNMENT
    return arrays
