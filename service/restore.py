"""Sessions that go on from a snapshot: new ones, and new lives of old ones."""

from collections.abc import Callable

from carousel.contract import Contract
from service.beginning import Beginning, Begun, begin, begin_one, standing
from service.engine import Engine
from service.errors import ModelDiffersError, SessionClosedError
from service.repository import ServedModel
from service.sessions import Slots
from service.snapshot import Snapshot
from service.tombstones import Key


async def open_from(
    engine: Engine,
    name: Key,
    ttl_us: int,
    snapshot: Snapshot,
    find_model: Callable[[], ServedModel],
    *,
    pinned: bool = False,
) -> Begun:
    """Start a session that goes on from a snapshot.

    Args:
        engine: Where it is to live.
        name: Its owner and id.
        ttl_us: Its time-to-live.
        snapshot: Of the model that is found now.
        find_model: Finds the model, also after another version has taken over.
        pinned: Whether it asked for its version.

    Raises:
        ServiceError: its id is taken, or there is no room.
        ModelDiffersError: a model with other states has taken over meanwhile.
    """
    unsealed_for = find_model()

    def look_up() -> Beginning:
        model = find_model()
        if model.rows is not unsealed_for.rows:
            raise ModelDiffersError(f"model {model.name!r} was replaced meanwhile by one with other states")
        return Beginning(model, ttl_us, snapshot.next_index, lambda: snapshot.planes)

    return await begin_one(engine, name, look_up, find_model, pinned=pinned)


async def restore(engine: Engine, name: Key, unseal: Callable[[Contract], Snapshot]) -> Begun:
    """Put a session back to a snapshot. Its old life ends as if it had been closed, or nothing happens at all.

    Args:
        engine: Where it lives.
        name: Its owner and id.
        unseal: Gives the snapshot if it is one of a model with this contract. May raise.

    Raises:
        ServiceError: the session is as it was, or was not there.
    """
    table = engine.table
    slot = table.find(*name, engine.clock())
    serial = table.serial[slot]
    snapshot = unseal(engine.served[int(table.model[slot])].contract)

    def check_alive() -> None:
        if table.find(*name, engine.clock()) != slot or table.serial[slot] != serial:
            raise SessionClosedError(f"session {name[1]!r} ended meanwhile, and a new one has its id")

    def look_up() -> Beginning:
        check_alive()
        return standing(engine, slot)._replace(
            next_index=snapshot.next_index, state=lambda: snapshot.planes, memory=None
        )

    def open_all(beginning: Beginning) -> Slots:
        check_alive()
        model, pinned = int(table.model[slot]), table.pinned[slot]
        engine.end(slot, SessionClosedError)
        slots = table.put([name], model, beginning.ttl_us, engine.clock())
        table.pinned[slots] = pinned
        return slots

    return await begin(engine, 1, look_up, open_all)
