"""Snapshots: what was sealed comes back bit for bit, and nothing else does."""

import asyncio
import hashlib
import hmac
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carousel.contract import Contract
from carousel.wire import carousel_pb2 as pb
from service.api import Api
from service.errors import ModelDiffersError, SnapshotRefusedError
from service.identity import Identity, caller
from service.snapshot import (
    HEADER_BYTES,
    MAGIC,
    OVERHEAD_BYTES,
    Header,
    Snapshot,
    check_size,
    header_of,
    seal,
    unseal,
)
from service.snapshot_key import SnapshotKeyError, snapshot_key
from tests.fakes import Harness, SessionView, contract

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
MINE = contract()


def header(next_index: int = 3, owner: str = "me", of: Contract = MINE) -> Header:
    return header_of(of, owner, "fake", next_index, "2026-01-01T00:00:00+00:00")


def made(value: float = 7.5, key: bytes = KEY, **named: object) -> bytes:
    return seal(header(**named), np.array([value], np.float32), key)


def opened(data: bytes, key: bytes = KEY, owner: str = "me", *, admin: bool = False) -> Snapshot:
    return unseal(data, MINE, key, owner, admin=admin)


def forged(text: bytes, state: bytes = bytes(4), version: int = 1, length: int | None = None) -> bytes:
    """What somebody can make who has read the source: all but the seal."""
    body = struct.pack("<8sHI", MAGIC, version, len(text) if length is None else length) + text + state
    body += hashlib.sha256(body).digest()
    return body + hmac.digest(OTHER_KEY, body, "sha256")


@given(
    index=st.integers(0, 1 << 62),
    value=st.floats(width=32, allow_nan=False, allow_infinity=False),
    owner=st.text(st.characters(exclude_categories=["Cs"]), max_size=128),
)
def test_what_was_sealed_comes_back_bit_for_bit(index: int, value: float, owner: str) -> None:
    back = opened(made(value, next_index=index, owner=owner), owner=owner)
    assert back.next_index == index
    assert back.state.tobytes() == np.array([value], np.float32).tobytes()


def test_every_damaged_bit_and_every_missing_byte_is_found_out() -> None:
    whole = made()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SnapshotRefusedError):
            opened(bytes(damaged))
    for length in range(len(whole)):
        with pytest.raises(SnapshotRefusedError):
            opened(whole[:length], admin=True)
    with pytest.raises(SnapshotRefusedError):
        opened(whole + b"\0", admin=True)


def test_damage_is_found_by_administrators_without_the_key_too() -> None:
    whole = made(key=OTHER_KEY)
    for bit in range(8 * (len(whole) - 32)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SnapshotRefusedError):
            opened(bytes(damaged), admin=True)


@pytest.mark.parametrize("data", [made(key=OTHER_KEY), made(owner="you")])
def test_only_administrators_bring_snapshots_of_other_servers_and_owners(data: bytes) -> None:
    with pytest.raises(SnapshotRefusedError, match="only administrators restore others"):
        opened(data)
    assert opened(data, admin=True).next_index == 3


def test_nothing_is_parsed_that_is_not_sealed_unless_an_administrator_brings_it() -> None:
    with pytest.raises(SnapshotRefusedError, match="only administrators"):
        opened(forged(b"no JSON"))
    with pytest.raises(SnapshotRefusedError, match="Invalid JSON"):
        opened(forged(b"no JSON"), admin=True)


def test_a_state_of_another_model_is_not_taken() -> None:
    other = contract("another lineage")
    with pytest.raises(
        ModelDiffersError, match="lineage 'fake', came one of model 'fake' with lineage 'another"
    ):
        opened(made(of=other))


def json_of(**changes: object) -> bytes:
    return header().model_copy(update=changes).model_dump_json().encode()


HOSTILE = {
    "nothing": b"",
    "something else": b"PK\x03\x04" + bytes(200),
    "another version": forged(json_of(), version=2),
    "a header longer than all": forged(json_of(), length=0xFFFFFFFF),
    "a header longer than any": forged(b" " * (HEADER_BYTES + 1)),
    "deep JSON": forged(b"[" * HEADER_BYTES),
    "a number without end": forged(b"9" * HEADER_BYTES),
    "no header": forged(b""),
    "an index below 0": forged(json_of(next_index=-1)),
    "an index beyond all": forged(json_of(next_index=1 << 63)),
    "another size": forged(json_of(size=2), bytes(8)),
    "another dtype": forged(json_of(dtype="float64"), bytes(8)),
    "half a row": forged(json_of(), bytes(3)),
    "a row and a half": forged(json_of(), bytes(6)),
    "NaN": forged(json_of(), np.array([np.nan], "<f4").tobytes()),
    "infinity": forged(json_of(), np.array([-np.inf], "<f4").tobytes()),
    "an unknown key": forged(json_of()[:-1] + b',"more":1}'),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_whatever_is_wrong_is_refused_even_to_administrators(data: bytes) -> None:
    with pytest.raises(SnapshotRefusedError):
        opened(data, admin=True)


@given(st.binary(max_size=300))
def test_bytes_that_fit_the_checksum_alone_are_refused(text: bytes) -> None:
    with pytest.raises(SnapshotRefusedError):
        opened(forged(text), admin=True)


def test_what_cannot_be_a_snapshot_is_refused_by_its_length_alone() -> None:
    check_size(bytes(4 + OVERHEAD_BYTES), row_bytes=4)
    with pytest.raises(SnapshotRefusedError, match=f"at most {4 + OVERHEAD_BYTES} bytes"):
        check_size(bytes(5 + OVERHEAD_BYTES), row_bytes=4)
    check_size(made(owner="\0" * 128), row_bytes=4)


def test_a_server_without_a_key_file_has_a_key_of_its_own() -> None:
    assert len(snapshot_key(None)) >= 32
    assert snapshot_key(None) != snapshot_key(None)


def test_the_key_is_the_content_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(KEY)
    assert snapshot_key(file) == KEY


@pytest.mark.parametrize(("content", "found"), [(b"short", "5"), (bytes(5000), "more")])
def test_a_key_that_is_too_short_or_too_long_is_refused(tmp_path: Path, content: bytes, found: str) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(SnapshotKeyError, match=f"32 to 4096 bytes, found {found}"):
        snapshot_key(file)
    with pytest.raises(SnapshotKeyError, match="expected a file"):
        snapshot_key(tmp_path)


async def test_a_snapshot_is_of_its_callers_session_whoever_turns_the_engine() -> None:
    h = Harness()
    api = Api(h.engine, h.metrics, 10.0, 1 << 20, KEY)
    for owner, steps in (("alice", 1), ("anonymous", 2)):
        slot = h.table.open(owner, "s", 0, 10.0, 0.0)
        h.send(SessionView(h.engine, slot), 0, [1.0] * steps)
    h.settle()
    token = caller.set(Identity("alice", admin=False))
    taking = asyncio.ensure_future(api.Snapshot(pb.SnapshotRequest(session="s"), None))
    caller.reset(token)
    while not taking.done():
        await asyncio.sleep(0)
        h.settle()
    taken = await taking
    assert taken.next_index == 1
    assert unseal(taken.snapshot, MINE, KEY, "alice", admin=False).next_index == 1
