"""The life of sessions: from opening to closing. Calls that can be repeated by their request ids."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from carousel.contract import Contract
from carousel.wire import carousel_pb2 as pb
from service.calls import Calls
from service.errors import InvalidInputError, SessionClosedError
from service.fork import fork
from service.identity import caller
from service.once import Once
from service.priming import open_primed, primed_inputs
from service.restore import open_from, restore
from service.sessions import MAX_TTL_S, micro
from service.snapshot import Snapshot, check_size, unseal

if TYPE_CHECKING:
    from service.calls import Context

COPIES = 1024
"""Most copies of one call."""


@dataclass(frozen=True, eq=False)
class SessionCalls(Calls):
    """`Open`, `Fork`, `Restore`, `Close`."""

    _opened: Once[pb.OpenResponse] = field(default_factory=lambda: Once(pb.OpenResponse), init=False)
    _forked: Once[pb.ForkResponse] = field(
        default_factory=lambda: Once(pb.ForkResponse, lambda made: len(made.copies)), init=False
    )
    _restored: Once[pb.RestoreResponse] = field(default_factory=lambda: Once(pb.RestoreResponse), init=False)
    _closed: Once[pb.CloseResponse] = field(default_factory=lambda: Once(pb.CloseResponse), init=False)

    async def Open(self, request: pb.OpenRequest, context: "Context") -> pb.OpenResponse:
        """Start a session."""
        self._check_snapshot(request.snapshot)
        return await self._opened.call(request, self.engine.clock, partial(self._open, request))

    async def Fork(self, request: pb.ForkRequest, context: "Context") -> pb.ForkResponse:
        """Start copies of a session."""
        if not 1 <= (len(request.copies) or request.count) <= COPIES:
            came = len(request.copies) or request.count
            raise InvalidInputError(f"copies: expected 1 to {COPIES}, got {came}")
        if "" in request.copies:
            raise InvalidInputError(
                "copies: expected ids, got an empty one; give `count` alone to have ids made"
            )
        return await self._forked.call(request, self.engine.clock, partial(self._fork, request))

    async def Restore(self, request: pb.RestoreRequest, context: "Context") -> pb.RestoreResponse:
        """Put a session back to a snapshot."""
        self._check_snapshot(request.snapshot)
        return await self._restored.call(request, self.engine.clock, partial(self._restore, request))

    async def Close(self, request: pb.CloseRequest, context: "Context") -> pb.CloseResponse:
        """End a session."""
        return await self._closed.call(request, self.engine.clock, partial(self._close, request))

    def dump_calls(self) -> dict[str, Any]:
        """The answers of calls that may be repeated after a restart, as JSON."""
        return {name: kind.dump(self.engine.clock()) for name, kind in self._kinds.items()}

    def load_calls(self, calls: dict[str, Any]) -> None:
        """Put back what `dump_calls` gave."""
        for name, kind in self._kinds.items():
            kind.load(calls.get(name, []), self.engine.clock())

    @property
    def _kinds(self) -> dict[str, Once[Any]]:
        return {
            "opened": self._opened,
            "forked": self._forked,
            "restored": self._restored,
            "closed": self._closed,
        }

    # -- each made once -------------------------------------------------------------------------------------------

    async def _open(self, request: pb.OpenRequest) -> pb.OpenResponse:
        self.engine.rules.check_open()
        find_model = partial(self.find_model, request.model, request.version)
        model, ttl_s = find_model(), self._ttl_s(request)
        if request.priming and request.snapshot:
            raise InvalidInputError("expected priming inputs or a snapshot, came both")
        engine, table, pinned = self.engine, self.engine.table, bool(request.version)
        name, ttl_us = (caller.get().owner, request.session), micro(ttl_s)
        if request.snapshot:
            snapshot = self._unseal(request.snapshot, model.contract)
            begun = await open_from(engine, name, ttl_us, snapshot, find_model, pinned=pinned)
            slot = int(begun.slots[0])
        elif (inputs := primed_inputs(model, request.priming)) is not None:
            with caller.get().account.taking(inputs.steps, engine.clock()):
                begun = await open_primed(engine, name, ttl_us, request.priming, find_model, pinned=pinned)
            slot = int(begun.slots[0])
        else:
            slot = table.open(*name, model.number, ttl_s, engine.clock())
            table.pinned[slot] = pinned
        self.metrics.opened.inc()
        model = self.engine.served[int(table.model[slot])]
        return pb.OpenResponse(
            session=table.id_of(slot),
            model=model.name,
            version=model.version,
            time_to_live_s=ttl_s,
            next_index=int(table.next_index[slot]),
        )

    async def _fork(self, request: pb.ForkRequest) -> pb.ForkResponse:
        self.engine.rules.check_open()
        owner = caller.get().owner
        ids: Sequence[str] = request.copies or [""] * request.count
        begun = await fork(self.engine, owner, request.session, [(owner, copy) for copy in ids])
        self.metrics.opened.inc(len(ids))
        made = [self.engine.table.id_of(slot) for slot in begun.slots.tolist()]
        return pb.ForkResponse(copies=made, next_index=begun.next_index)

    async def _restore(self, request: pb.RestoreRequest) -> pb.RestoreResponse:
        self.engine.rules.check_open()
        name = (caller.get().owner, request.session)
        begun = await restore(self.engine, name, partial(self._unseal, request.snapshot))
        self.metrics.opened.inc()
        return pb.RestoreResponse(next_index=begun.next_index)

    async def _close(self, request: pb.CloseRequest) -> pb.CloseResponse:
        table = self.engine.table
        slot = table.find(caller.get().owner, request.session, self.engine.clock())
        steps = int(table.next_index[slot])
        self.engine.end(slot, SessionClosedError)
        return pb.CloseResponse(steps=steps)

    # -- parts ----------------------------------------------------------------------------------------------------

    def _ttl_s(self, request: pb.OpenRequest) -> float:
        ttl_s = request.time_to_live_s or self.ttl_s
        if not 0 < ttl_s <= MAX_TTL_S or math.isnan(ttl_s):
            raise InvalidInputError(
                f"time_to_live_s: expected more than 0 and at most {MAX_TTL_S:.0f}, got {ttl_s}"
            )
        return ttl_s

    def _check_snapshot(self, snapshot: bytes) -> None:
        """Refuse what is too long before anybody looks at it."""
        rows = [model.session_bytes for model in self.engine.models]
        check_size(snapshot, max(rows, default=0))

    def _unseal(self, snapshot: bytes, contract: Contract) -> Snapshot:
        who = caller.get()
        return unseal(snapshot, contract, self.snapshot_key, who.owner, admin=who.admin)
