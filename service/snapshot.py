"""The state of a session as bytes that leave the server and come back. Pure.

    magic 8 | version 2 | length of the header 4 | header, JSON | planes | SHA-256 of all before | HMAC-SHA256 of all

The planes are the state row and after it those that are read-only, as the contract of the header's signature has them.
Numbers are little-endian. The checksum finds damage, whoever made the snapshot; the seal is made with the server's key
(RFC 2104) and says that a server with this key did, for the owner in the header. Nothing is parsed before both are known,
and no size is believed: what is read is never longer than what came, and that is bounded by the model.
"""

import hashlib
import hmac
import struct
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from carousel.contract import Contract, Signature
from carousel.mistakes import first_mistake
from carousel.wire.frames import NUMPY
from service.errors import ModelDiffersError, SnapshotRefusedError

MAGIC = b"CAROUSEL"
VERSION = 1
HEADER_BYTES = 8192
"""The longest header: names and hashes of at most 128 characters each."""
MOST_STEPS = 1 << 62
"""No session has made more."""

_PREFIX = struct.Struct("<8sHI")
_HASH_BYTES = hashlib.sha256().digest_size
_NOT_YOURS = (
    "snapshot: expected one of yours, sealed with this server's key; only administrators restore others"
)

OVERHEAD_BYTES = _PREFIX.size + HEADER_BYTES + 2 * _HASH_BYTES


State = NDArray[np.generic]


class Header(BaseModel):
    """What a snapshot says of its state."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    owner: str
    """Who may restore it."""
    model: str
    signature: Signature
    """Only models of this signature can go on with it."""
    next_index: Annotated[int, Field(ge=0, le=MOST_STEPS)]
    dtype: str
    size: int
    """S, elements of the row."""
    created: str
    """When, for people."""


class Snapshot(NamedTuple):
    """What came back."""

    next_index: int
    state: State
    """`[S]`"""
    memory: tuple[State, ...] = ()
    """The read-only planes."""

    @property
    def planes(self) -> tuple[State, ...]:
        """All of them, in the order of the contract."""
        return (self.state, *self.memory)


def header_of(contract: Contract, owner: str, model: str, next_index: int, created: str) -> Header:
    """The header of a session's state."""
    plane = contract.planes[0]
    return Header(
        owner=owner,
        model=model,
        signature=contract.signature,
        next_index=next_index,
        dtype=plane.dtype,
        size=plane.size,
        created=created,
    )


def seal(header: Header, state: State, key: bytes, memory: Sequence[State] = ()) -> bytes:
    """Make a snapshot.

    Args:
        header: From `header_of`.
        state: `[S]`, typed as the header says.
        key: The server's secret.
        memory: The read-only planes.
    """
    text = header.model_dump_json().encode()
    body = (
        _PREFIX.pack(MAGIC, VERSION, len(text))
        + text
        + b"".join(plane.tobytes() for plane in (state, *memory))
    )
    body += hashlib.sha256(body).digest()
    return body + hmac.digest(key, body, "sha256")


def unseal(data: bytes, contract: Contract, key: bytes, owner: str, *, admin: bool) -> Snapshot:
    """Take a snapshot apart that may have been made by anybody.

    Args:
        data: What came.
        contract: Of the model that is to go on with it.
        key: The server's secret.
        owner: Who brings it,
        admin: and whether that is an administrator, who may bring those of other owners and other servers.

    Raises:
        SnapshotRefusedError: it is damaged, foreign, or holds numbers that no state may hold.
        ModelDiffersError: it belongs to another model.
    """
    sealed = _verify(data, key)
    if not (sealed or admin):
        raise SnapshotRefusedError(_NOT_YOURS)
    header, blob = _take_apart(data)
    if not admin and header.owner != owner:
        raise SnapshotRefusedError(_NOT_YOURS)
    _check_model(header, contract)
    state, *memory = _planes_of(header, blob, contract)
    return Snapshot(header.next_index, state, tuple(memory))


def check_size(data: bytes, row_bytes: int) -> None:
    """Refuse what is too long to be a snapshot of planes of so many bytes, before anybody looks at it.

    Raises:
        SnapshotRefusedError: with both sizes.
    """
    most = row_bytes + OVERHEAD_BYTES
    if len(data) > most:
        raise SnapshotRefusedError(f"snapshot: expected at most {most} bytes, came {len(data)}")


def _verify(data: bytes, key: bytes) -> bool:
    """Whether a whole snapshot is sealed with this key."""
    if data[: len(MAGIC)] != MAGIC:
        raise SnapshotRefusedError("snapshot: expected what Snapshot gave, came something else")
    if len(data) < _PREFIX.size + 2 * _HASH_BYTES:
        raise SnapshotRefusedError(f"snapshot: damaged; {len(data)} bytes are too few")
    view = memoryview(data)
    body, checksum = view[: -2 * _HASH_BYTES], view[-2 * _HASH_BYTES : -_HASH_BYTES]
    if not hmac.compare_digest(hashlib.sha256(body).digest(), checksum):
        raise SnapshotRefusedError("snapshot: damaged; its checksum does not fit")
    return hmac.compare_digest(hmac.digest(key, view[:-_HASH_BYTES], "sha256"), view[-_HASH_BYTES:])


def _take_apart(data: bytes) -> tuple[Header, memoryview]:
    _, version, length = _PREFIX.unpack_from(data)
    if version != VERSION:
        raise SnapshotRefusedError(f"snapshot: expected version {VERSION}, came {version}")
    body = memoryview(data)[_PREFIX.size : -2 * _HASH_BYTES]
    if length > min(HEADER_BYTES, len(body)):
        raise SnapshotRefusedError(
            f"snapshot: expected a header of at most {HEADER_BYTES} bytes, came {length}"
        )
    try:
        header = Header.model_validate_json(bytes(body[:length]))
    except ValidationError as error:
        raise SnapshotRefusedError(f"snapshot: {first_mistake(error)}") from error
    return header, body[length:]


def _check_model(header: Header, contract: Contract) -> None:
    wanted = contract.signature
    if header.signature != wanted:
        kind = "lineage" if header.signature.layout == wanted.layout else "layout"
        raise ModelDiffersError(
            f"snapshot: expected a state of {kind} {getattr(wanted, kind)!r}, came one of model {header.model!r} "
            f"with {kind} {getattr(header.signature, kind)!r}"
        )


def _planes_of(header: Header, blob: memoryview, contract: Contract) -> list[State]:
    plane = contract.planes[0]
    sizes = [one.size * NUMPY[one.dtype].itemsize for one in contract.planes]
    if (header.dtype, header.size, len(blob)) != (plane.dtype, plane.size, sum(sizes)):
        wanted = " and ".join(f"{one.size} {one.dtype}" for one in contract.planes)
        raise SnapshotRefusedError(
            f"snapshot: expected {wanted}, came {header.size} {header.dtype} in {len(blob)} bytes"
        )
    planes, start = [], 0
    for one, size in zip(contract.planes, sizes, strict=True):
        planes.append(np.frombuffer(blob[start : start + size], NUMPY[one.dtype]))
        start += size
    if not all(np.isfinite(values).all() for values in planes):
        raise SnapshotRefusedError("snapshot: expected a finite state, came one with NaN or infinity")
    return planes
