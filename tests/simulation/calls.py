"""Calls that wait for rows, beside everything else: forks, snapshots, restores, sessions opened from snapshots.

A call ends at some later event. By then its session may have stepped, ended, begun a new life or gone through a restart;
what came of the call must have been true of one life of the session at one index since it was asked for.
"""

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import Message

from carousel.wire import carousel_pb2 as pb
from service.beginning import Begun
from service.errors import (
    BackendFailedError,
    ContentDiffersError,
    DrainingError,
    ModelDiffersError,
    ModelNotFoundError,
    QueueFullError,
    ServiceError,
    SessionClosedError,
    SessionExistsError,
    SessionGoneError,
    SessionNotFoundError,
)
from service.fork import end_hidden, hidden_copies
from service.snapshot import unseal
from tests.planes import SOURCES, primed, source
from tests.simulation.twin import Shared, Twin
from tests.simulation.world import KEY, OWNER, TTL_S, World, caught

MOST_SESSIONS = 60
"""Beyond it nothing is copied: the server takes 100."""
MOST_PENDING = 3


class Taken(NamedTuple):
    """A snapshot, and what is in it."""

    data: bytes
    index: int
    state: float
    plane: float
    lineage: int


@dataclass(eq=False)
class Pending:
    """A call that has not ended."""

    method: str
    request: Any
    task: "asyncio.Task[Any]"
    twin: Twin | None = None
    """Whose session it is about,"""
    steps: int = 0
    """how many it had made,"""
    taken: Taken | None = None
    """and what its session is to begin with."""

    def __post_init__(self) -> None:
        self.plane = Shared(0.0 if self.taken is None else self.taken.plane)
        """Of that session."""


@dataclass(eq=False)
class Made:
    """A call that may be repeated."""

    method: str
    request: Any
    answer: Message


class Calls(World):
    """A world with calls under way."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.pending: list[Pending] = []
        self.made: list[Made] = []
        self.taken: list[Taken] = []
        self.past: list[Twin] = []
        """Lives whose ids live again, or did."""
        self._numbers = 0

    # -- events ---------------------------------------------------------------------------------------------------

    def fork(self) -> None:
        """Perhaps by an id that is taken, or will be."""
        twin = self.random.choice(self.twins)
        if len(self.pending) < MOST_PENDING and len(self.alive) < MOST_SESSIONS:
            request = pb.ForkRequest(session=twin.id, request_id=self.number("fork"))
            if self.random.random() < 0.5:
                request.count = self.random.choice([1, 2, 5])
            else:
                request.copies.append(self.number("copy"))
                if self.random.random() < 0.2:
                    request.copies.append(self.random.choice(self.twins).id)
            self._begin("Fork", request, twin)

    def look_ahead(self) -> None:
        """Copies that the server makes for itself."""
        if len(self.pending) < MOST_PENDING and len(self.alive) < MOST_SESSIONS:
            twin = self.random.choice(self.twins)
            self._begin("hidden", pb.ForkRequest(session=twin.id, count=self.random.randint(1, 3)), twin)

    def take_a_snapshot(self) -> None:
        twin = self.random.choice(self.twins)
        if len(self.pending) < MOST_PENDING:
            self._begin("Snapshot", pb.SnapshotRequest(session=twin.id), twin)

    def restore(self) -> None:
        """Perhaps the snapshot is another session's."""
        if self.taken and len(self.pending) < MOST_PENDING:
            twin, taken = self.random.choice(self.twins), self.random.choice(self.taken[-5:])
            request = pb.RestoreRequest(
                session=twin.id, snapshot=taken.data, request_id=self.number("restore")
            )
            self._begin("Restore", request, twin, taken)

    def open_from_a_snapshot(self) -> None:
        if self.taken and len(self.pending) < MOST_PENDING and len(self.alive) < MOST_SESSIONS:
            taken = self.random.choice(self.taken[-5:])
            request = pb.OpenRequest(model="fake", snapshot=taken.data, request_id=self.number("open from"))
            self._begin("Open", request, None, taken)

    def open_primed(self, ttl_s: float, version: str) -> None:
        """Its state and its plane are made between two runs."""
        if len(self.pending) < MOST_PENDING and len(self.alive) < MOST_SESSIONS:
            value = float(self.random.randrange(SOURCES))
            request = pb.OpenRequest(model="fake", version=version, time_to_live_s=ttl_s)
            request.priming.append(source(value))
            request.request_id = self.number("open")
            self._begin("Open", request, None, Taken(b"", 0, *primed(value), self.lineage))

    def leave_a_call(self) -> None:
        """Its caller hangs up, and asks again: nothing may be made twice, or come to nothing."""
        if self.pending:
            call = self.random.choice(self.pending)
            if call.method != "hidden":
                call.task.cancel()
                call.task = self._task(call.method, call.request)

    def repeat_a_call(self) -> None:
        """It is answered and not made again; with its id, nothing else is made."""
        if self.made:
            made = self.random.choice(self.made)
            assert self.call(getattr(self.api, made.method)(made.request, None)) == made.answer
            self._refuse_other(made.method, made.request)
        for call in self.pending[-1:]:
            if call.method not in ("hidden", "Snapshot"):
                self._refuse_other(call.method, call.request)

    def touch(self) -> None:
        twin = self.random.choice(self.twins)
        answer = caught(lambda: self._touch(twin))
        assert type(answer) is (twin.gone or type(None))

    def list_sessions(self) -> None:
        self.collect()
        prefix, size = self.random.choice(["", "", "copy"]), self.random.choice([1, 3, 1000])
        alive = sorted(self.alive, key=lambda twin: twin.view.serial)
        expected = [(twin.id, twin.view.next_index) for twin in alive if twin.id.startswith(prefix)]
        found, token = list[tuple[str, int]](), ""
        while (token or not found) and len(found) <= len(expected):
            request = pb.ListSessionsRequest(page_size=size, page_token=token, prefix=prefix)
            page = self.call(self.api.ListSessions(request, None))
            found += [(one.session, one.next_index) for one in page.sessions]
            if not (token := page.next_page_token):
                break
        assert found == expected

    # -- the loop -------------------------------------------------------------------------------------------------

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The result of a call that waits for no rows."""
        task = self.loop.create_task(coroutine)
        self._spin()
        assert task.done()
        return task.result()

    def collect(self) -> None:
        """Look at the calls that have ended."""
        if not self.pending:
            return
        self._spin()
        for call in self.pending[:]:
            if call.task.done():
                self.pending.remove(call)
                error = call.task.exception()
                if error is None:
                    self._succeeded(call, call.task.result())
                else:
                    assert isinstance(error, ServiceError), error
                    self._failed(call, error)

    def is_being_restored(self, twin: Twin) -> bool:
        """Whether a call is under way that may end this life."""
        return any(call.method == "Restore" and call.request.session == twin.id for call in self.pending)

    def cut_off(self) -> None:
        """The engine has ended: nobody learns what became of the calls under way."""
        self.collect()
        self.cancel_all()
        self.pending = [call for call in self.pending if call.method != "hidden"]

    def cancel_all(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self._spin()

    def ask_again(self) -> None:
        """Another engine is there."""
        for call in self.pending:
            call.task = self._task(call.method, call.request)

    def _begin(self, method: str, request: Any, twin: Twin | None, taken: Taken | None = None) -> None:
        steps = 0 if twin is None else twin.steps
        self.pending.append(Pending(method, request, self._task(method, request), twin, steps, taken))

    def _task(self, method: str, request: Any) -> "asyncio.Task[Any]":
        if method == "hidden":
            task = self.loop.create_task(hidden_copies(self.h.engine, OWNER, request.session, request.count))
        else:
            task = self.loop.create_task(getattr(self.api, method)(request, None))
        self._spin()
        return task

    def _spin(self) -> None:
        """Let every task go on as far as it can."""
        self.loop.run_until_complete(_some_turns())

    def number(self, what: str) -> str:
        self._numbers += 1
        return f"{what} {self._numbers}"

    def _refuse_other(self, method: str, request: Any) -> None:
        other = type(request)()
        other.CopyFrom(request)
        other.session = "other"
        refused = caught(lambda: self.call(getattr(self.api, method)(other, None)))
        assert isinstance(refused, ContentDiffersError)

    def _touch(self, twin: Twin) -> None:
        answer = self.call(self.api.Touch(pb.TouchRequest(session=twin.id), None))
        assert answer.expires_in_s == twin.ttl_s
        twin.used = self.h.now

    # -- what came of it ------------------------------------------------------------------------------------------

    def _succeeded(self, call: Pending, answer: Any) -> None:
        if call.method not in ("hidden", "Snapshot"):
            self.made.append(Made(call.method, call.request, answer))
        match call.method:
            case "Fork":
                state, plane = self._then(call, answer.next_index, self._state_of(answer.copies[0]))
                assert len(answer.copies) == (len(call.request.copies) or call.request.count)
                assert set(call.request.copies) <= set(answer.copies)
                for copy in answer.copies:
                    life = self._life(call)
                    self._add(copy, life.ttl_s, answer.next_index, state, plane, life)
            case "hidden":
                self._check_hidden(call, answer)
            case "Snapshot":
                found = unseal(answer.snapshot, self.h.model.contract, KEY, OWNER, admin=False)
                state, plane = self._then(call, answer.next_index, float(found.state[0]))
                assert (found.next_index, found.state.tolist()) == (answer.next_index, [state])
                assert [one.tolist() for one in found.memory] == [[plane.number]] * self.planes
                self.taken.append(Taken(answer.snapshot, found.next_index, state, plane.number, self.lineage))
            case "Restore":
                self._check_restored(call, answer.next_index)
            case "Open":
                ttl_s = call.request.time_to_live_s or TTL_S
                self._add_from(call, answer.session, ttl_s, answer.next_index)

    def _check_hidden(self, call: Pending, copies: Begun) -> None:
        table, rows = self.h.table, self.h.table.row[copies.slots]
        state, plane = self._then(call, copies.next_index, self.h.backend.read(rows)[0, 0])
        assert self.h.backend.read(rows)[:, 0].tolist() == [state] * call.request.count
        if self.h.model.memory is not None:
            (numbers,) = self.h.model.memory.read(table.memory[copies.slots])
            assert numbers[:, 0].tolist() == [plane.number] * call.request.count
        names = [table.id_of(slot) for slot in copies.slots.tolist()]
        end_hidden(self.h.engine, copies)
        assert isinstance(caught(lambda: self.view(names[0])), SessionNotFoundError)

    def _check_restored(self, call: Pending, index: int) -> None:
        twin = call.twin
        assert twin is not None
        assert twin.gone is SessionClosedError
        self._add_from(call, twin.id, twin.ttl_s, index, twin)

    def _add_from(
        self, call: Pending, session_id: str, ttl_s: float, index: int, before: Twin | None = None
    ) -> None:
        taken = call.taken
        assert taken is not None
        assert taken.index == index
        assert not taken.data or taken.lineage == self.lineage
        twin = self._add(session_id, ttl_s, index, taken.state, call.plane, before)
        if call.method == "Open":
            twin.pinned = call.request.version

    def _add(
        self, session_id: str, ttl_s: float, index: int, state: float, plane: Shared, like: Twin | None
    ) -> Twin:
        """A session that began with a state. Whoever had its id before is gone."""
        before = [twin for twin in self.twins if twin.id == session_id]
        assert all(twin.gone is not None for twin in before)
        self.past += before
        self.twins = [twin for twin in self.twins if twin not in before]
        view = self.view(session_id)
        assert self.h.backend.read(np.array([view.row]))[0] == state
        assert (view.next_index, view.tail, view.kept, view.pending) == (index, index, [], [])
        twin = Twin(view, ttl_s, self.h.now, index, state, plane)
        self.follow(twin, like)
        for earlier in self._lives(session_id):
            earlier.heirs.append(twin)
        self.twins.append(twin)
        return twin

    def follow(self, twin: Twin, like: Twin | None = None) -> None:
        """A new session is for the newest version, or stays with that of the one that it was made from."""
        twin.factor = self.h.backend.factor
        if like is not None and like.pinned:
            twin.pinned, twin.factor = like.pinned, like.factor

    def _lives(self, session_id: str) -> list[Twin]:
        return [twin for twin in (*self.past, *self.twins) if twin.id == session_id]

    def _life(self, call: Pending) -> Twin:
        return self._lives(call.request.session)[-1]

    def _state_of(self, session_id: str) -> float:
        return self.h.backend.read(np.array([self.view(session_id).row]))[0, 0]

    def _then(self, call: Pending, index: int, state: float) -> tuple[float, Shared]:
        """The state and the plane that the session had at this index, which it has reached since the call began.

        Two of its lives may have been there, of which the one with this state is meant, if any is.
        """
        found = list(self._at(call, index))
        assert found, f"{call.method}: no life of {call.request.session!r} was at {index}"
        return next((one for one in found if one[0] == state), found[0])

    def _at(self, call: Pending, index: int) -> Iterator[tuple[float, Shared]]:
        for twin in reversed(self._lives(call.request.session)):
            ends = {twin.base, *(chunk.end for chunk in twin.chunks)}
            since = call.steps if twin is call.twin else 0
            if index in ends and since <= index <= self._committed(twin):
                yield twin.state_at(index), twin.plane
        for other in self.pending:  # it may have begun a life that nobody has looked at yet
            is_of_it = other.method == "Restore" and other.request.session == call.request.session
            if is_of_it and other.taken is not None and other.taken.index == index:
                yield other.taken.state, other.plane

    @staticmethod
    def _committed(twin: Twin) -> int:
        return max(twin.steps, twin.view.next_index if twin.view.alive else 0)

    def _failed(self, call: Pending, error: ServiceError) -> None:
        """Nothing was made, for a reason."""
        session = call.request.session
        match error:
            case SessionGoneError() | SessionNotFoundError():
                assert type(error) in [twin.gone for twin in self._lives(session)]
            case DrainingError():
                assert self.draining
            case SessionExistsError():
                assert any(self._lives(copy) for copy in call.request.copies)
            case QueueFullError():
                too_many = str(error).startswith(f"{self._room.chunks} calls wait for state rows")
                assert self.h.spill is not None or too_many
            case BackendFailedError():
                assert self.write_failed
            case ModelNotFoundError():  # it asked for a version, and another one has taken over
                assert call.request.version not in ("", self.h.model.version)
            case ModelDiffersError():
                assert call.taken is not None
                assert call.taken.lineage != self.lineage
            case _:
                raise AssertionError(f"{call.method} was refused: {error!r}")


async def _some_turns() -> None:
    for _ in range(6):
        await asyncio.sleep(0)
