"""What serves the two forms of a step graph: rows outside the graph, or an arena that the graph changes itself."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from carousel.contract import Contract
from service.arena_backend import ArenaBackend, power_of_two
from service.arena_store import ArenaStore
from service.backend import Backend
from service.memory import Memory
from service.onnx_backend import OnnxBackend
from service.row_store import RowStore

if TYPE_CHECKING:
    import onnxruntime

    from service.settings import Settings
    from service.spill import SpillFile

Store = RowStore | ArenaStore


def new_store(contract: Contract, rows: int, settings: "Settings", spill_file: "SpillFile | None") -> Store:
    """Rows for models of this form.

    Raises:
        MemoryError: there is no room for so many.
        OSError: the spill file cannot be made.
    """
    if contract.form == "rows":
        memory = Memory(contract.planes[1:], settings.max_sessions) if len(contract.planes) > 1 else None
        return RowStore(contract, rows, spill_file, memory)
    return ArenaStore(contract, rows, power_of_two(settings.max_batch), settings.provider, spill_file)


def new_backend(session: "onnxruntime.InferenceSession", contract: Contract, store: Store) -> Backend:
    """What runs a model over the rows of its form."""
    if isinstance(store, ArenaStore):
        return ArenaBackend(session, contract, store)
    return OnnxBackend(session, contract, store)


def captures(backend: Backend, settings: "Settings") -> Sequence[Callable[[], None]]:
    """What is left to do before the first run, in the thread that runs batches: record the CUDA graphs asked for."""
    if settings.cuda.graphs and isinstance(backend, ArenaBackend):
        return backend.captures(settings.max_batch)
    return ()
