"""What the calls of `carousel.v1` stand on. Each group of calls is a class of its own over this one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.engine import Engine
from service.errors import ModelNotFoundError
from service.metrics import Metrics
from service.repository import ServedModel

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

    def find_model(self, name: str, version: str) -> ServedModel:
        """The model of this name; an empty version means the newest.

        Raises:
            ModelNotFoundError: it is not served.
        """
        for model in self.engine.models.values():
            if model.name == name and version in ("", model.version):
                return model
        served = ", ".join(sorted(self.engine.models))
        wanted = f"{name}/{version}" if version else name
        raise ModelNotFoundError(f"model {wanted!r} is not served; served are: {served}")
