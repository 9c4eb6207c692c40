"""Snapshots to restore: whole ones, damaged ones, and some that nobody's session ever gave."""

import hashlib
import hmac
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from service.snapshot import MOST_STEPS, header_of, seal
from tests.fuzz.beside import KEY, KINDS, Beside
from tests.fuzz.frames import damaged, wounds

PREFIX_BYTES = 14
CHECKSUM_BYTES = 32
SEAL_BYTES = 32


class Torn(NamedTuple):
    """A snapshot, and what is done to it."""

    model: str
    next_index: int | None = None
    """None: the server has made it; else it is forged, with this index and each number of its planes so."""
    number: float = 0.0
    wounds: tuple[tuple[int, int, bytes], ...] = ()
    sealed: bool = False
    """Whether its header alone is damaged, and it is sealed again afterwards."""

    def data(self, beside: Beside) -> bytes:
        """What is sent."""
        whole = beside.snapshots[self.model] if self.next_index is None else self._forged(beside)
        if not self.sealed:
            return damaged(whole, self.wounds)
        body = whole[: -CHECKSUM_BYTES - SEAL_BYTES]
        end = PREFIX_BYTES + int.from_bytes(body[PREFIX_BYTES - 4 : PREFIX_BYTES], "little")
        return _sealed(damaged(body[:end], self.wounds) + body[end:])

    def _forged(self, beside: Beside) -> bytes:
        contract = beside.served(self.model).contract
        state, *memory = (np.full(plane.size, self.number, np.float32) for plane in contract.planes)
        header = header_of(contract, "anonymous", self.model, 0, "")
        return seal(header.model_copy(update={"next_index": self.next_index}), state, KEY, memory)


def _sealed(body: bytes) -> bytes:
    summed = body + hashlib.sha256(body).digest()
    return summed + hmac.digest(KEY, summed, "sha256")


@st.composite
def torn(draw: Any) -> Torn:
    """Snapshots of every kind of session, of which many are whole."""
    model = draw(st.sampled_from(list(KINDS)))
    match draw(st.integers(0, 3)):
        case 0:
            return Torn(model, wounds=tuple(draw(wounds)), sealed=draw(st.booleans()))
        case 1:
            index = draw(st.sampled_from([0, 5, MOST_STEPS, MOST_STEPS + 1, -1]))
            return Torn(model, index, draw(st.sampled_from([0.0, 0.5, 100.0, np.nan, np.inf])))
        case _:
            return Torn(model)
