"""Loops on the server: tokens from a session's own answers, and forecasts that do not move it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from carousel.wire import carousel_pb2 as pb
from service.calls import Calls
from service.errors import InvalidInputError, ServiceError
from service.feedback import check_feeds, feeds_of
from service.forecast import Scenario, copied, run_ahead
from service.generate import Generation
from service.generations import Generations
from service.identity import caller
from service.repository import ServedModel

if TYPE_CHECKING:
    from service.calls import Context

SCENARIOS = 64


@dataclass(frozen=True, eq=False)
class LoopCalls(Calls):
    """`Generate`, `Forecast`."""

    _generations: Generations = field(default_factory=Generations, init=False)

    async def Generate(self, request: pb.GenerateRequest, context: "Context") -> None:
        """Step a session with tokens drawn from its own answers.

        A call that is repeated while the first still runs reads along: both are sent every token.
        """
        owner, now = caller.get().owner, self.engine.clock()
        content = request.SerializeToString(deterministic=True)
        known = self._generations.find(owner, request.request_id, content, now)
        generation = (
            known if isinstance(known, Generation) else Generation(self.engine, caller.get(), request, known)
        )
        self._generations.keep(owner, request.request_id, content, generation, now)
        reader = generation.join()
        try:
            while (response := await reader.next()) is not None:
                await context.write(response)
        except ServiceError:
            if not generation.begun:  # nothing was fed: the same call may begin where the session stands then
                self._generations.forget(owner, request.request_id)
            raise
        finally:
            reader.leave()

    def dump_generations(self) -> list[list[Any]]:
        """Where generations stand that may be asked for after a restart, as JSON."""
        return self._generations.dump(self.engine.clock())

    def load_generations(self, dump: list[list[Any]]) -> None:
        """Put back what `dump_generations` gave."""
        self._generations.load(dump, self.engine.clock())

    async def Forecast(self, request: pb.ForecastRequest, context: "Context") -> pb.ForecastResponse:
        """What a session would answer to coming steps."""
        engine, (owner, _, account) = self.engine, caller.get()
        engine.rules.check_open()
        slot = engine.table.find(owner, request.session, engine.clock())
        model = engine.served[int(engine.table.model[slot])]
        scenarios = self._scenarios(model, request)
        steps = request.steps * len(scenarios)
        with account.taking(steps, engine.clock(), len(scenarios)):
            async with copied(engine, owner, request.session, len(scenarios)) as copies:
                model = await run_ahead(engine, copies, scenarios, model)
        return _forecast_response(model, copies.next_index, scenarios)

    def _scenarios(self, model: ServedModel, request: pb.ForecastRequest) -> list[Scenario]:
        """Hold a request against the model."""
        count, steps = len(request.scenarios), request.steps
        if not 1 <= count <= SCENARIOS:
            raise InvalidInputError(f"scenarios: expected 1 to {SCENARIOS}, got {count}")
        if not 1 <= steps <= model.chunk_steps:
            raise InvalidInputError(f"steps: expected 1 to {model.chunk_steps}, got {steps}")
        if (size := count * steps * model.step_bytes) > self.message_bytes:
            raise InvalidInputError(
                f"steps and scenarios: expected an answer of at most {self.message_bytes} bytes, "
                f"{count} times {steps} steps would make {size}"
            )
        feeds = feeds_of(model.contract)
        check_feeds(model.contract, feeds)
        scenarios = []
        for number, scenario in enumerate(request.scenarios):
            try:
                scenarios.append(Scenario(model.contract, feeds, scenario.inputs, steps))
            except InvalidInputError as error:
                raise InvalidInputError(f"scenario {number}: {error}") from error
        return scenarios


def _forecast_response(model: ServedModel, next_index: int, scenarios: list[Scenario]) -> pb.ForecastResponse:
    response = pb.ForecastResponse(next_index=next_index, model=model.name, version=model.version)
    for scenario in scenarios:
        forecasted = response.scenarios.add()
        for port, values in zip(model.contract.outputs, scenario.outputs, strict=True):
            forecasted.outputs.add(name=port.name, data=values.tobytes())
    return response
