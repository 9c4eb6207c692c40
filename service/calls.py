"""What the calls of `carousel.v1` stand on. Each group of calls is a class of its own over this one."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from service.engine import Engine
from service.metrics import Metrics
from service.repository import ServedModel
from service.snapshot_key import snapshot_key

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, eq=False)
class Calls:
    """The engine and what the settings say about calls."""

    engine: Engine
    metrics: Metrics
    ttl_s: float
    """Time-to-live of sessions whose clients ask for none."""
    message_bytes: int
    """Largest message."""
    snapshot_key: bytes = field(default_factory=lambda: snapshot_key(None))
    """What snapshots are sealed with."""

    def find_model(self, name: str, version: str) -> ServedModel:
        """What takes new sessions of this name; an empty version means the newest.

        Raises:
            ModelNotFoundError: it is not served.
        """
        return self.engine.models.find(name, version)
