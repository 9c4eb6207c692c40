"""The models being served."""

from typing import TYPE_CHECKING

from carousel.wire import carousel_pb2 as pb
from service.calls import Calls
from service.kept import WINDOW_BYTES, WINDOW_CHUNKS
from service.repository import ServedModel
from service.stream import STREAM_CHUNKS

if TYPE_CHECKING:
    from service.calls import Context


class ModelCalls(Calls):
    """`ListModels`."""

    async def ListModels(self, _: pb.ListModelsRequest, context: "Context") -> pb.ListModelsResponse:
        """The models being served, with contracts and limits."""
        return pb.ListModelsResponse(models=[self._describe(model) for model in self.engine.models.values()])

    def _describe(self, model: ServedModel) -> pb.Model:
        limits = pb.Limits(
            chunk_steps=model.chunk_steps,
            window_chunks=WINDOW_CHUNKS,
            window_bytes=WINDOW_BYTES,
            message_bytes=self.message_bytes,
            stream_chunks=STREAM_CHUNKS,
        )
        return pb.Model(
            name=model.name, version=model.version, contract=model.contract.to_json(), limits=limits
        )
