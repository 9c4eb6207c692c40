"""The sessions attached on one stream, by handle."""

from collections.abc import Sequence

import numpy as np

from carousel.wire.carousel_pb2 import Attach, Attached
from service.engine import Engine
from service.errors import InvalidInputError, ServiceError, SessionClosedError
from service.repository import ServedModel
from service.status import chunk_error

STREAM_HANDLES = 1 << 20
NOBODY = -1
"""The serial number of no session."""


class Handles:
    """Columns with one entry a handle."""

    def __init__(self, engine: Engine, owner: str) -> None:
        self._engine = engine
        self._owner = owner
        self._slots: list[int] = []
        self._serials: list[int] = []
        self._kind_of: list[int] = []
        """Twice the model's number, and one more if the session stays with its version: no swap parts a frame."""
        self._ids: list[str] = []
        self._errors: dict[int, ServiceError] = {}
        self._kinds: set[int] = set()
        """Of all handles."""
        self._takeovers = engine.takeovers

    def attach(self, attach: Attach) -> Attached:
        """Give every session of the message the next handle.

        Raises:
            InvalidInputError: the stream has as many handles as it may.
        """
        if len(self._ids) + len(attach.sessions) > STREAM_HANDLES:
            raise InvalidInputError(
                f"attach: expected at most {STREAM_HANDLES} handles a stream; open a new stream"
            )
        table, now = self._engine.table, self._engine.clock()
        answer = Attached(first_handle=len(self._ids))
        for position, session_id in enumerate(attach.sessions):
            try:
                slot = table.find(self._owner, session_id, now)
            except ServiceError as error:
                self._errors[len(self._ids)] = error.again()
                self._add("", 0, NOBODY, NOBODY)  # the id may be as long as a message
                answer.next_indices.append(0)
                answer.errors.append(chunk_error(position, error))
            else:
                kind = int(2 * table.model[slot] + table.pinned[slot])
                self._add(session_id, slot, int(table.serial[slot]), kind)
                self._kinds.add(kind)
                answer.next_indices.append(int(table.next_index[slot]))
        return answer

    def look_up(self, handles: Sequence[int]) -> tuple[list[int], list[int], ServedModel | None]:
        """Slots and serial numbers of the sessions of a frame, and their model; None if none is attached.

        Raises:
            InvalidInputError: they are sessions of several models.
        """
        if self._takeovers != self._engine.takeovers:
            self._look_again()
        if max(handles) >= len(self._ids):
            return self._look_up_known(handles)
        slots = [self._slots[handle] for handle in handles]
        serials = [self._serials[handle] for handle in handles]
        if len(self._kinds) == 1 and not self._errors:
            return slots, serials, self._engine.served[next(iter(self._kinds)) >> 1]
        return slots, serials, self._model(handles, slots, serials)

    def why_not(self, handle: int) -> ServiceError:
        """What is wrong with a handle whose session is not alive."""
        if handle >= len(self._ids):
            return InvalidInputError(
                f"handle: expected one of the {len(self._ids)} attached on this stream, got {handle}"
            )
        if handle not in self._errors:
            session_id = self._ids[handle]
            try:
                self._engine.table.find(self._owner, session_id, self._engine.clock())
            except ServiceError as error:
                self._errors[handle] = error.again()
            else:
                self._errors[handle] = SessionClosedError(
                    f"session {session_id!r} ended, and a new one has its id; attach again"
                )
        return self._errors[handle].again()

    def _look_again(self) -> None:
        """Sessions may have gone from one version of their model to another."""
        table, slots = self._engine.table, np.array(self._slots, np.int64)
        alive = table.serial[slots] == self._serials
        kinds = np.where(alive, 2 * table.model[slots] + table.pinned[slots], self._kind_of)
        self._kind_of, self._kinds = kinds.tolist(), set(kinds[alive].tolist())
        self._takeovers = self._engine.takeovers

    def _look_up_known(self, handles: Sequence[int]) -> tuple[list[int], list[int], ServedModel | None]:
        slots = [self._slots[handle] if handle < len(self._ids) else 0 for handle in handles]
        serials = [self._serials[handle] if handle < len(self._ids) else NOBODY for handle in handles]
        return slots, serials, self._model(handles, slots, serials)

    def _model(self, handles: Sequence[int], slots: list[int], serials: list[int]) -> ServedModel | None:
        """The model of those that are alive: a session that has ended lends its model to no frame."""
        served, alive = self._engine.served, self._engine.table.serial[slots] == serials
        kinds = {self._kind_of[handle] for handle, lives in zip(handles, alive, strict=True) if lives}
        if len(kinds) > 1:
            asked = ("", " that was asked for")
            names = ", ".join(sorted(served[kind >> 1].key + asked[kind & 1] for kind in kinds))
            raise InvalidInputError(f"frame: expected sessions of one model, got {names}")
        return served[kinds.pop() >> 1] if kinds else None

    def _add(self, session_id: str, slot: int, serial: int, kind: int) -> None:
        self._ids.append(session_id)
        self._slots.append(slot)
        self._serials.append(serial)
        self._kind_of.append(kind)
