"""What a session would answer to coming steps, without moving it: hidden copies of it step ahead, one a scenario.

They step like any session, in batches with the others. What the contract feeds back is fed back as the model gave it.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import numpy as np

from carousel.contract import Contract, Port
from carousel.wire.frames import NUMPY
from service.beginning import Begun
from service.cohort import Answers, Array, Cohort
from service.dispatcher import settle
from service.engine import Engine
from service.errors import InvalidInputError, ServiceError, SessionClosedError, SessionLostError
from service.feedback import Feed, fed_back
from service.fork import end_hidden, hidden_copies
from service.group import blobs_of
from service.repository import ServedModel

if TYPE_CHECKING:
    from carousel.wire.carousel_pb2 import Tensor


class Scenario:
    """One way ahead: inputs that were given or fed back, and the answers.

    Args:
        contract: Of the model.
        feeds: What it feeds back; seen by `check_feeds`.
        tensors: The inputs that were given.
        steps: T.

    Raises:
        InvalidInputError: a tensor is missing, unknown or given twice, or has other than the steps that it needs.
    """

    def __init__(
        self, contract: Contract, feeds: Sequence[Feed], tensors: "Sequence[Tensor]", steps: int
    ) -> None:
        self._contract = contract
        self._feeds = feeds
        self._steps = steps
        self._inputs = given(contract, feeds, tensors, steps)
        self._known = {feed: len(self._inputs[feed.input]) for feed in feeds}
        """How many steps of each input that is fed back are known."""
        for feed in feeds:
            self._inputs[feed.input] = _of_length(self._inputs[feed.input], steps)
        self.outputs = [np.empty((steps, *p.shape), NUMPY[p.dtype]) for p in contract.outputs]
        """`[T, *shape]` each, in the order of the contract."""
        self._done = 0

    @property
    def ready(self) -> int:
        """Steps whose inputs are known; 0: it has arrived."""
        return min([self._steps, *self._known.values()]) - self._done

    def blobs(self) -> list[bytes]:
        """The inputs of these steps."""
        part = slice(self._done, self._done + self.ready)
        return [values[part].tobytes() for values in self._inputs]

    def take(self, outputs: Sequence[Array]) -> None:
        """The answers to these steps, `[ready, *shape]` each."""
        end = self._done + self.ready
        for whole, part in zip(self.outputs, outputs, strict=True):
            whole[self._done : end] = part
        self._done = end
        for feed, known in self._known.items():
            if known == end < self._steps:
                ports = (self._contract.outputs[feed.output], self._contract.inputs[feed.input])
                self._inputs[feed.input][end] = fed_back(*ports, self.outputs[feed.output][end - 1])
                self._known[feed] = end + 1


class Frame:
    """Waits for one chunk of each of some scenarios."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = numbers
        """Of the scenarios, for what a person is told."""
        self._open = len(numbers)
        self._answers: list[Answers] = []
        self.all: asyncio.Future[list[Answers]] = asyncio.get_running_loop().create_future()
        self.left = False
        self.waits: list[Cohort] = []

    def answered(self, answers: Answers) -> None:
        """These chunks were committed."""
        self._answers.append(answers)
        self._open -= len(answers.positions)
        if not self._open:
            settle(self.all, self._answers)

    def refused(self, position: int, error: ServiceError) -> None:
        """This chunk was not applied."""
        if isinstance(error, InvalidInputError):
            error = InvalidInputError(f"scenario {self._numbers[position]}: {error}")
        settle(self.all, error)

    def gone(self, position: int) -> ServiceError:
        """Why the copy is no more."""
        number = self._numbers[position]
        return SessionLostError(f"scenario {number}: the copy that it steps is no more; forecast again")


@asynccontextmanager
async def copied(engine: Engine, owner: str, session_id: str, count: int) -> AsyncIterator[Begun]:
    """Hidden copies of a session, ended afterwards whatever happens."""
    making = asyncio.ensure_future(hidden_copies(engine, owner, session_id, count))
    try:
        copies = await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(lambda made: _end_late(engine, made))
        raise
    try:
        yield copies
    finally:
        end_hidden(engine, copies)


async def run_ahead(
    engine: Engine, copies: Begun, scenarios: Sequence[Scenario], asked: ServedModel
) -> ServedModel:
    """Let every scenario arrive, all of them side by side and with one version of the model.

    What is queued when it fails or is cancelled goes with the copies.

    Args:
        engine: Where the copies live.
        copies: One a scenario.
        scenarios: What they step with.
        asked: The model that the scenarios were held against; another version may have taken over.

    Returns:
        Which version it was.

    Raises:
        SessionClosedError: the copies are of a session of another model, which has got the id meanwhile.
        ServiceError: a step was refused, or could not be made.
    """
    table = engine.table
    alive = table.serial[copies.slots] == copies.serials
    table.pinned[copies.slots[alive]] = True
    model = engine.served[int(table.model[copies.slots[0]])]
    if model.rows is not asked.rows:
        raise SessionClosedError("the session ended meanwhile, and one of another model has its id")
    while numbers := [k for k, scenario in enumerate(scenarios) if scenario.ready]:
        moving = [scenarios[k] for k in numbers]
        frame = Frame(numbers)
        lengths = [scenario.ready for scenario in moving]
        engine.offer(
            model,
            frame,
            copies.slots[numbers].tolist(),
            copies.serials[numbers].tolist(),
            None,  # nobody asks again: no answer need be kept
            lengths,
            None,
            [b"".join(parts) for parts in zip(*(scenario.blobs() for scenario in moving), strict=True)],
        )
        for answers in await frame.all:
            _hand_out(model.contract.outputs, answers, moving)
    return model


def given(contract: Contract, feeds: Sequence[Feed], tensors: "Sequence[Tensor]", steps: int) -> list[Array]:
    """The inputs of a scenario, `[steps, *shape]`, or fewer of those that are fed back; see `Scenario`."""
    names = [port.name for port in contract.inputs]
    for tensor in tensors:
        if tensor.name not in names:
            raise InvalidInputError(f"{tensor.name}: unknown tensor, expected {', '.join(names)}")
    arrays = []
    fed = {feed.input for feed in feeds}
    for number, port in enumerate(contract.inputs):
        own = [tensor for tensor in tensors if tensor.name == port.name]
        count = _steps_given(port, own, steps) if number in fed and own else steps
        (blob,) = blobs_of([port], own, count)
        arrays.append(np.frombuffer(blob, NUMPY[port.dtype]).reshape(count, *port.shape))
    return arrays


def _steps_given(port: Port, tensors: "Sequence[Tensor]", steps: int) -> int:
    size, step_bytes = len(tensors[0].data), port.size * NUMPY[port.dtype].itemsize
    if size % step_bytes or not 1 <= size // step_bytes <= steps:
        raise InvalidInputError(
            f"{port.name}: expected 1 to {steps} steps of {step_bytes} bytes, came {size} bytes"
        )
    return size // step_bytes


def _of_length(values: Array, steps: int) -> Array:
    """A copy with room for all steps."""
    whole = np.zeros((steps, *values.shape[1:]), values.dtype)
    whole[: len(values)] = values
    return whole


def _hand_out(ports: Sequence[Port], answers: Answers, moving: Sequence[Scenario]) -> None:
    sizes = (len(answers.positions), answers.length)
    outputs = [
        np.frombuffer(blob, NUMPY[port.dtype]).reshape(*sizes, *port.shape)
        for port, blob in zip(ports, answers.outputs, strict=True)
    ]
    for k, position in enumerate(answers.positions):
        moving[position].take([output[k] for output in outputs])


def _end_late(engine: Engine, made: "asyncio.Future[Begun]") -> None:
    """Copies that were made after their caller had left."""
    if not made.cancelled() and made.exception() is None:
        end_hidden(engine, made.result())
