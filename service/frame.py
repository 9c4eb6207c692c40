"""The frames of a stream: who waits for one, and how answers are put into messages."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from carousel.wire.carousel_pb2 import AnswerFrame, StreamResponse
from service.cohort import Answers, Cohort
from service.errors import ServiceError
from service.repository import ServedModel
from service.status import chunk_error

FRAME_BYTES = 1 << 20
"""An answer frame of this size is full."""


class Refusal(NamedTuple):
    """A chunk of a frame that was not applied."""

    position: int
    error: ServiceError
    version: str
    """Of the model that the chunk was for."""


class Stream(Protocol):
    """What a frame's caller tells its stream."""

    def send(self, item: "Item") -> None:
        """Write this when the client reads."""
        ...

    def why_not(self, handle: int) -> ServiceError:
        """Why the session with this handle is no more."""
        ...


class FrameCaller:
    """Waits for the chunks of one frame on behalf of a stream."""

    __slots__ = ("_stream", "firsts", "handles", "left", "lengths", "model", "open", "waits")

    def __init__(
        self,
        stream: Stream,
        model: ServedModel | None,
        handles: list[int],
        firsts: Sequence[int] | None,
        lengths: list[int],
    ) -> None:
        self._stream = stream
        self.model = model
        self.handles = handles
        self.firsts = firsts
        self.lengths = lengths
        self.open = len(handles)
        """Chunks that have no outcome yet."""
        self.left = False
        self.waits: list[Cohort] = []

    def answered(self, answers: Answers) -> None:
        """These chunks were committed."""
        chunks = len(answers.positions)
        assert self.model is not None
        self._stream.send(Item(self, answers, chunks, chunks * answers.length * self.model.step_bytes))

    def refused(self, position: int, error: ServiceError) -> None:
        """This chunk was not applied."""
        budget_bytes = 0 if self.model is None else self.lengths[position] * self.model.step_bytes
        version = "" if self.model is None else self.model.version
        self._stream.send(Item(self, Refusal(position, error, version), 1, budget_bytes))

    def gone(self, position: int) -> ServiceError:
        """Why the session of this chunk is no more."""
        return self._stream.why_not(self.handles[position])


class Item(NamedTuple):
    """The outcome of some chunks of a frame."""

    caller: FrameCaller
    outcome: Answers | Refusal
    chunks: int
    """How many."""
    budget_bytes: int
    """What was set aside for their answers."""


def frames(ready: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Gather answers of one version of a model into frames of about FRAME_BYTES, keeping the order."""
    start, size = 0, 0
    for end, item in enumerate(ready):
        if end > start and (size >= FRAME_BYTES or not _alike(item, ready[start])):
            yield ready[start:end]
            start, size = end, 0
        size += item.budget_bytes
    yield ready[start:]


def _alike(one: Item, other: Item) -> bool:
    return one.caller.model is other.caller.model and one.outcome.version == other.outcome.version


def message(items: Sequence[Item]) -> StreamResponse:
    """One answer frame with all these outcomes, which are of one version of a model."""
    handles, firsts, lengths = list[int](), list[int](), list[int]()
    errors, answers = [], []
    for caller, outcome, *_ in items:
        if isinstance(outcome, Answers):
            whole = len(outcome.positions) == len(caller.handles)
            handles += caller.handles if whole else [caller.handles[k] for k in outcome.positions]
            firsts += outcome.firsts
            lengths += [outcome.length] * len(outcome.positions)
            answers.append(outcome.outputs)
        else:
            errors.append(chunk_error(len(handles), outcome.error))
            handles.append(caller.handles[outcome.position])
            firsts.append(caller.firsts[outcome.position] if caller.firsts else 0)
            lengths.append(0)
    model = items[0].caller.model
    response = StreamResponse()
    frame: AnswerFrame = response.answers
    frame.handles.extend(handles)
    frame.first_indices.extend(firsts)
    frame.lengths.extend(lengths)
    if errors:
        frame.errors.extend(errors)
    if model is not None:
        frame.model, frame.version = model.name, items[0].outcome.version
        if answers:
            for port, blobs in zip(model.contract.outputs, zip(*answers, strict=True), strict=True):
                frame.outputs.add(name=port.name, data=blobs[0] if len(blobs) == 1 else b"".join(blobs))
    return response
