"""The models of a server, as far as a client has asked for them."""

from carousel.client.calls import Calls
from carousel.client.description import Description
from carousel.client.errors import ModelNotFoundError
from carousel.client.served import ServedModel
from carousel.wire.carousel_pb2 import DescribeResponse, Model, Reason


class Catalog:
    """Asks for the list again only when a model is missing: what a version promises stays."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._models: dict[tuple[str, str], ServedModel] = {}

    async def ask(self) -> list[ServedModel]:
        """The models being served, as of now."""
        response = await self._calls.list_models()
        found = [ServedModel.from_wire(model) for model in response.models if model.state != Model.FAILED]
        self._models = {(model.name, model.version): model for model in found}
        return found

    async def find(self, name: str, version: str) -> ServedModel:
        """What is known of a model before it is asked for anything; any version tells the dtypes of its inputs."""
        if not any(one == name and version in ("", other) for one, other in self._models):
            await self.ask()
        for model in self._models.values():
            if model.name == name and version in ("", model.version) and not model.retiring:
                return model
        wanted = f"{name}/{version}" if version else name
        raise ModelNotFoundError(f"model {wanted!r} is not being served", Reason.MODEL_NOT_FOUND)

    async def served(self, name: str, version: str) -> ServedModel:
        """The version that a session runs."""
        if (name, version) not in self._models:
            await self.ask()
        try:
            return self._models[name, version]
        except KeyError:
            message = f"model {name!r} version {version!r} is not being served any more"
            raise ModelNotFoundError(message, Reason.MODEL_NOT_FOUND) from None

    async def description(self, told: DescribeResponse) -> Description:
        """Where a session stands, with a name for each number that was observed."""
        statistics: tuple[str, ...] = ()
        if told.observed:
            observed = (await self.served(told.model, told.version)).contract.observed
            statistics = () if observed is None else observed.statistics
        return Description.from_wire(told, statistics)
