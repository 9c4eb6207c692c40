"""One version takes over from another, and goes when nobody needs it. On the event-loop thread alone.

Sessions of equal signature keep their rows: the column `model` changes, and with it what their next chunks are admitted
for. Chunks that were admitted before stay with the version before, so a chunk is of one version from its first step to
its last, and a session changes once.
"""

import numpy as np

from service.engine import Engine
from service.repository import ServedModel
from service.sessions import FREE


def take_over(engine: Engine, model: ServedModel) -> int:
    """Give a loaded version the new sessions of its name, and those of its siblings that did not ask for their version.

    Returns:
        How many live sessions go on with it.
    """
    engine.admit_offered()  # what came in this turn was for the version before
    table, part = engine.table, slice(0, engine.table.used_slots)
    from_here = np.zeros(len(engine.served), np.bool_)
    from_here[[other.number for other in engine.models.siblings(model)]] = True
    moved = from_here[table.model[part]] & ~table.pinned[part] & (table.serial[part] != FREE)
    table.model[part][moved] = model.number
    engine.models.serve(model)
    engine.takeovers += 1
    return int(np.count_nonzero(moved))


def sessions_of(engine: Engine) -> list[int]:
    """How many live sessions each version has, by number."""
    part = slice(0, engine.table.used_slots)
    alive = engine.table.serial[part] != FREE
    counts: list[int] = np.bincount(engine.table.model[part][alive], minlength=len(engine.served)).tolist()
    return counts


def abandoned(engine: Engine) -> list[ServedModel]:
    """Versions that take no new sessions, have none, and have no chunk on its way."""
    retiring = [model for model in engine.models if not engine.models.is_serving(model)]
    if not retiring:
        return []
    sessions, busy = sessions_of(engine), {cohort.model for cohort in engine.queue}
    return [model for model in retiring if not sessions[model.number] and model.number not in busy]


def unload(engine: Engine, model: ServedModel) -> bool:
    """Forget an abandoned version; between two runs. Closing its backend is left to the thread that owns rows.

    Returns:
        Whether it was the last over its rows.
    """
    last = not engine.models.siblings(model)
    engine.models.remove(model)
    engine.observations.drop(model.number)
    if last:
        engine.kept.drop_model(model.number)
        if model.spill is not None:
            model.spill.close()
    return last
