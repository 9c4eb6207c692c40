"""Whether the service takes steps, told alike by gRPC health checks and by `/readyz`."""

from grpc_health.v1 import health, health_pb2

from carousel.wire import carousel_pb2

SERVICE = carousel_pb2.DESCRIPTOR.services_by_name["Carousel"].full_name

HANGS = "a run hangs"
"""Not ready, and not even alive: only a restart helps."""


class Readiness:
    """Not ready until told otherwise."""

    def __init__(self) -> None:
        self.why_not: str | None = "starting"
        """None while the service takes steps."""
        self.servicer = health.aio.HealthServicer()
        """`grpc.health.v1`."""

    async def report(self, why_not: str | None) -> None:
        """Tell everybody: None is ready, anything else says why not."""
        self.why_not = why_not
        status = health_pb2.HealthCheckResponse
        for name in ("", SERVICE):
            await self.servicer.set(name, status.SERVING if why_not is None else status.NOT_SERVING)
