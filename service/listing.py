"""Sessions in the order of their opening, a page at a time. A million of them are looked at in parts."""

import asyncio
import base64
import binascii
import hashlib
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from service.errors import InvalidInputError
from service.sessions import HIDDEN, SessionTable, Slots

SCAN_SLOTS = 1 << 14
"""Sessions looked at before the loop turns to others."""
NOBODY = -1
"""The number of no owner."""
MOST = (1 << 63) - 1

_TOKEN = struct.Struct("<Q8s")


class Wanted(NamedTuple):
    """Which sessions are asked for."""

    owner: str | None
    """None: of all owners."""
    model: str
    """Empty: of all models."""
    prefix: str
    """How their ids begin."""

    def token(self, serial: int) -> str:
        """Says that a page ended with this session."""
        digest = hashlib.blake2b(repr((*self, serial)).encode(), digest_size=8).digest()
        return base64.urlsafe_b64encode(_TOKEN.pack(serial, digest)).decode()

    def after(self, token: str) -> int:
        """The serial number of the last session of the page before; 0: there was none.

        Raises:
            InvalidInputError: the token does not belong to this listing.
        """
        if not token:
            return 0
        try:
            serial, _ = _TOKEN.unpack(base64.urlsafe_b64decode(token))
        except (ValueError, binascii.Error, struct.error):
            serial = 0
        if token != self.token(serial):
            raise InvalidInputError("page_token: expected one that this listing gave, with the same filters")
        return int(serial)


class Page(NamedTuple):
    """Some sessions."""

    slots: list[int]
    serials: list[int]
    """Who they were then."""
    last: int
    """The serial number that the page ends with; 0: there are no more sessions."""


async def page(table: SessionTable, wanted: Wanted, models: Sequence[int], after: int, size: int) -> Page:
    """The first sessions whose serial numbers are above `after`, in order.

    Args:
        table: The sessions. Those that are there all the time are found; who comes or goes meanwhile may be missing.
        wanted: Which of them.
        models: Numbers of the models wanted; none: all.
        after: The serial number that the page before ended with.
        size: Most sessions.
    """
    found = serials = np.empty(0, np.int64)
    for start in range(0, table.used_slots, SCAN_SLOTS):
        part = slice(start, min(start + SCAN_SLOTS, table.used_slots))
        before = int(serials[-1]) if len(serials) > size else MOST
        slots = _some(table, wanted, models, part, (after, before))
        found, serials = np.concatenate([found, slots]), np.concatenate([serials, table.serial[slots]])
        first = np.argsort(serials)[: size + 1]  # one more tells whether there are more
        found, serials = found[first], serials[first]
        if part.stop < table.used_slots:
            await asyncio.sleep(0)
    last = int(serials[size - 1]) if len(serials) > size else 0
    return Page(found[:size].tolist(), serials[:size].tolist(), last)


def _some(
    table: SessionTable, wanted: Wanted, models: Sequence[int], part: slice, between: tuple[int, int]
) -> Slots:
    """The wanted sessions with these slots and serial numbers."""
    serials, owners = table.serial[part], table.owner[part]
    fine = (serials > between[0]) & (serials < between[1])
    if wanted.owner is None:
        hidden = table.number_of(HIDDEN)
        fine &= owners != (NOBODY if hidden is None else hidden)
    else:
        number = table.number_of(wanted.owner)
        fine &= owners == (NOBODY if number is None else number)
    if wanted.model:
        fine &= np.isin(table.model[part], models)
    slots: Slots = fine.nonzero()[0] + part.start
    if wanted.prefix:
        named = [slot for slot in slots.tolist() if table.id_of(slot).startswith(wanted.prefix)]
        slots = np.array(named, np.int64)
    return slots
