"""Sessions as they stand. Nothing is changed by these calls but the time of an expiry."""

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from carousel.wire import carousel_pb2 as pb
from service.beginning import read_planes
from service.between_runs import between_runs
from service.calls import Calls
from service.errors import InvalidInputError, NotAllowedError
from service.identity import caller
from service.listing import Wanted, page
from service.sessions import micro
from service.snapshot import header_of, seal

if TYPE_CHECKING:
    from service.calls import Context
    from service.errand import Job

PAGE_SESSIONS = 100
"""Sessions of a page, unless the client asks for another number."""
PAGE_SESSIONS_LIMIT = 1000
AT_ONCE = 64
"""Sessions described before the loop turns to others."""


class ViewCalls(Calls):
    """`Describe`, `ListSessions`, `Touch`, `Snapshot`."""

    async def Describe(self, request: pb.DescribeRequest, context: "Context") -> pb.DescribeResponse:
        """Where a session stands."""
        return self._standing(self._find(request.session))

    async def ListSessions(
        self, request: pb.ListSessionsRequest, context: "Context"
    ) -> pb.ListSessionsResponse:
        """The caller's sessions in the order of their opening."""
        if request.page_size > PAGE_SESSIONS_LIMIT:
            raise InvalidInputError(
                f"page_size: expected at most {PAGE_SESSIONS_LIMIT}, got {request.page_size}"
            )
        who = caller.get()
        if request.all_owners and not who.admin:
            raise NotAllowedError("all_owners: only administrators see the sessions of others")
        wanted = Wanted(None if request.all_owners else who.owner, request.model, request.prefix)
        models = [model.number for model in self.engine.served if model.name == request.model]
        after, size = wanted.after(request.page_token), request.page_size or PAGE_SESSIONS
        found = await page(self.engine.table, wanted, models, after, size)
        response = pb.ListSessionsResponse(next_page_token=wanted.token(found.last) if found.last else "")
        for start in range(0, len(found.slots), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            for slot, serial in zip(found.slots[part], found.serials[part], strict=True):
                if self.engine.table.serial[slot] == serial:  # it may have ended meanwhile
                    response.sessions.append(self._standing(slot))
            await asyncio.sleep(0)
        return response

    async def Touch(self, request: pb.TouchRequest, context: "Context") -> pb.TouchResponse:
        """Put off the expiry of a session."""
        table, slot = self.engine.table, self._find(request.session)
        table.used_us[slot] = micro(self.engine.clock())
        return pb.TouchResponse(expires_in_s=int(table.ttl_us[slot]) / 1e6)

    async def Snapshot(self, request: pb.SnapshotRequest, context: "Context") -> pb.SnapshotResponse:
        """The state of a session as bytes."""
        owner, index = caller.get().owner, 0

        def start() -> "Job":
            nonlocal index
            table = self.engine.table
            # Not `_find`: what runs between two runs does so in anybody's context, and `caller` may be another.
            slot = table.find(owner, request.session, self.engine.clock())
            model, row = self.engine.served[int(table.model[slot])], int(table.row[slot])
            index = int(table.next_index[slot])
            header = header_of(
                model.contract, owner, model.name, index, datetime.now(UTC).isoformat(timespec="seconds")
            )
            memory = int(table.memory[slot])

            def read() -> bytes:
                state, *planes = read_planes(model, row, memory)
                return seal(header, state, self.snapshot_key, planes)

            return read

        snapshot = await between_runs(self.engine, start, lambda sealed: sealed)
        return pb.SnapshotResponse(snapshot=snapshot, next_index=index)

    def _find(self, session_id: str) -> int:
        return self.engine.table.find(caller.get().owner, session_id, self.engine.clock())

    def _standing(self, slot: int) -> pb.DescribeResponse:
        table, now = self.engine.table, self.engine.clock()
        model = self.engine.served[int(table.model[slot])]
        answers = self.engine.kept.of(slot, int(table.acknowledged[slot]))
        return pb.DescribeResponse(
            session=table.id_of(slot),
            model=model.name,
            version=model.version,
            next_index=int(table.next_index[slot]),
            queued_chunks=len(self.engine.queue.chain(slot)),
            kept_answers=len(answers),
            kept_bytes=sum(answer.length for answer in answers) * model.step_bytes,
            expires_in_s=max(0.0, int(table.used_us[slot] + table.ttl_us[slot]) / 1e6 - now),
            pinned=bool(table.pinned[slot]),
            owner=table.owner_of(slot),
            observed=self.engine.observations.of(slot),
        )
