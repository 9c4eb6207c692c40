"""The life of sessions: from opening to closing."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToJson, Parse

from carousel.wire import carousel_pb2 as pb
from service.calls import Calls
from service.errors import InvalidInputError, SessionClosedError
from service.identity import caller
from service.replays import Replays
from service.sessions import MAX_TTL_S

if TYPE_CHECKING:
    from service.calls import Context


@dataclass(frozen=True, eq=False)
class SessionCalls(Calls):
    """`Open`, `Describe`, `Close`."""

    _opened: Replays[pb.OpenResponse] = field(default_factory=Replays, init=False)
    _closed: Replays[pb.CloseResponse] = field(default_factory=Replays, init=False)

    async def Open(self, request: pb.OpenRequest, context: "Context") -> pb.OpenResponse:
        """Start a session."""
        owner, now = caller.get().owner, self.engine.clock()
        content = request.SerializeToString(deterministic=True)
        if (made := self._opened.find(owner, request.request_id, content, now)) is not None:
            return made
        self.engine.rules.check_open()
        model = self.find_model(request.model, request.version)
        ttl_s = request.time_to_live_s or self.ttl_s
        if not 0 < ttl_s <= MAX_TTL_S or math.isnan(ttl_s):
            raise InvalidInputError(
                f"time_to_live_s: expected more than 0 and at most {MAX_TTL_S:.0f}, got {ttl_s}"
            )
        table = self.engine.table
        slot = table.open(owner, request.session, model.number, ttl_s, now)
        self.metrics.opened.inc()
        made = pb.OpenResponse(
            session=table.id_of(slot), model=model.name, version=model.version, time_to_live_s=ttl_s
        )
        self._opened.keep(owner, request.request_id, content, made, now)
        return made

    async def Describe(self, request: pb.DescribeRequest, context: "Context") -> pb.DescribeResponse:
        """Where a session stands."""
        now = self.engine.clock()
        table, kept = self.engine.table, self.engine.kept
        slot = table.find(caller.get().owner, request.session, now)
        model = self.engine.served[int(table.model[slot])]
        answers = kept.of(slot, int(table.acknowledged[slot]))
        return pb.DescribeResponse(
            session=request.session,
            model=model.name,
            version=model.version,
            next_index=int(table.next_index[slot]),
            queued_chunks=len(self.engine.queue.chain(slot)),
            kept_answers=len(answers),
            kept_bytes=sum(answer.length for answer in answers) * model.step_bytes,
            expires_in_s=max(0.0, int(table.used_us[slot] + table.ttl_us[slot]) / 1e6 - now),
        )

    async def Close(self, request: pb.CloseRequest, context: "Context") -> pb.CloseResponse:
        """End a session."""
        owner, now = caller.get().owner, self.engine.clock()
        content = request.SerializeToString(deterministic=True)
        if (done := self._closed.find(owner, request.request_id, content, now)) is not None:
            return done
        slot = self.engine.table.find(owner, request.session, now)
        steps = int(self.engine.table.next_index[slot])
        self.engine.end(slot, SessionClosedError)
        done = pb.CloseResponse(steps=steps)
        self._closed.keep(owner, request.request_id, content, done, now)
        return done

    def dump_calls(self) -> dict[str, Any]:
        """The answers of calls that may be repeated after a restart, as JSON."""
        now = self.engine.clock()
        return {
            "opened": self._opened.dump(MessageToJson, now),
            "closed": self._closed.dump(MessageToJson, now),
        }

    def load_calls(self, calls: dict[str, Any]) -> None:
        """Put back what `dump_calls` gave."""
        now = self.engine.clock()
        self._opened.load(calls["opened"], lambda text: Parse(text, pb.OpenResponse()), now)
        self._closed.load(calls["closed"], lambda text: Parse(text, pb.CloseResponse()), now)
