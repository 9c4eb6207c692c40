"""Copies of sessions."""

from collections.abc import Sequence

from service.beginning import Beginning, Begun, begin, standing
from service.engine import Engine
from service.errors import SessionClosedError
from service.sessions import HIDDEN, Slots
from service.tombstones import Key


async def fork(engine: Engine, owner: str, session_id: str, names: Sequence[Key]) -> Begun:
    """Start copies of a session: its committed state and its index, its model and time-to-live, no kept answers.

    Args:
        engine: Where it lives.
        owner: Of the session.
        session_id: Its id.
        names: Owner and id of each copy; an empty id lets the server make one.

    Raises:
        ServiceError: it does not exist, an id is taken, or there is no room; no copy was made.
    """
    table = engine.table

    def look_up() -> Beginning:
        slot = table.find(owner, session_id, engine.clock())
        table.check_new(names)  # before anything is copied
        return standing(engine, slot)

    def open_all(beginning: Beginning) -> Slots:
        # Found again: it may have ended meanwhile, or another version may have taken over.
        slot = table.find(owner, session_id, engine.clock())
        model = engine.served[int(table.model[slot])]
        if model.rows is not beginning.model.rows:
            raise SessionClosedError(
                f"session {session_id!r} ended meanwhile, and one of another model has its id"
            )
        slots = table.open_all(names, model.number, beginning.ttl_us, engine.clock())
        table.pinned[slots] = table.pinned[slot]
        return slots

    return await begin(engine, len(names), look_up, open_all)


async def hidden_copies(engine: Engine, owner: str, session_id: str, count: int) -> Begun:
    """Copies for the server's own use, which nobody sees; whoever makes them ends them with `end_hidden`."""
    return await fork(engine, owner, session_id, [(HIDDEN, "")] * count)


def end_hidden(engine: Engine, copies: Begun) -> None:
    """End copies that still live. Nothing is remembered of them."""
    alive = engine.table.serial[copies.slots] == copies.serials
    for slot in copies.slots[alive].tolist():
        engine.end(slot, SessionClosedError)
