"""The models being served, and those that come and go."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from carousel.wire import carousel_pb2 as pb
from service.calls import Calls
from service.errors import NotAllowedError
from service.identity import caller
from service.kept import WINDOW_BYTES, WINDOW_CHUNKS
from service.loader import Loader
from service.repository import LoadedModel, ServedModel
from service.stream import STREAM_CHUNKS
from service.swap import sessions_of

if TYPE_CHECKING:
    from service.calls import Context


@dataclass(frozen=True, eq=False)
class ModelCalls(Calls):
    """`ListModels`, `LoadModel`, `UnloadModel`."""

    loader: Loader | None = field(default=None, kw_only=True)
    """None: there is no repository, and models stay what they are."""

    async def ListModels(self, _: pb.ListModelsRequest, context: "Context") -> pb.ListModelsResponse:
        """The versions that are loaded, with contracts and limits, and those that could not be."""
        sessions, models = sessions_of(self.engine), self.engine.models
        listed = [self._describe(model, sessions[model.number]) for model in models]
        listed += [self._describe(model) for model in models.whole]
        failed = [
            pb.Model(name=name, version=version, state=pb.Model.FAILED, error=error)
            for name, version, error in models.failures
        ]
        return pb.ListModelsResponse(models=[*listed, *failed])

    async def LoadModel(self, request: pb.LoadModelRequest, context: "Context") -> pb.LoadModelResponse:
        """Serve a version from the repository."""
        model, took_over = await self._loader().load(request.name, request.version)
        sessions = sessions_of(self.engine)[model.number] if isinstance(model, ServedModel) else 0
        told = self._describe(model, sessions)
        return pb.LoadModelResponse(model=told, took_over=took_over)

    async def UnloadModel(self, request: pb.UnloadModelRequest, context: "Context") -> pb.UnloadModelResponse:
        """Take no new sessions of a version."""
        return pb.UnloadModelResponse(sessions=self._loader().unload(request.name, request.version))

    def _loader(self) -> Loader:
        if not caller.get().admin:
            raise NotAllowedError("only administrators may load and unload models")
        assert self.loader is not None
        return self.loader

    def _describe(self, model: LoadedModel, sessions: int = 0) -> pb.Model:
        limits, priming = pb.Limits(message_bytes=self.message_bytes), None
        if isinstance(model, ServedModel):
            priming = model.priming
            limits = pb.Limits(
                chunk_steps=model.chunk_steps,
                window_chunks=WINDOW_CHUNKS,
                window_bytes=WINDOW_BYTES,
                message_bytes=self.message_bytes,
                stream_chunks=STREAM_CHUNKS,
            )
        serving = self.engine.models.is_serving(model)
        return pb.Model(
            name=model.name,
            version=model.version,
            contract=model.contract.to_json(),
            limits=limits,
            state=pb.Model.SERVING if serving else pb.Model.RETIRING,
            sessions=sessions,
            priming_contract="" if priming is None else priming.contract.to_json(),
        )
