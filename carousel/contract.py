"""The contract: what a stateful ONNX graph promises to the service and its clients.

One JSON document under the key `carousel.contract` of the model's `metadata_props`. Axes: T time, B batch.
See docs/adr/0001-contract.md.
"""

import hashlib
import json
import math
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from carousel.errors import CarouselError
from carousel.mistakes import first_mistake

METADATA_KEY = "carousel.contract"
FORMAT = 4
_SINCE = {"runs_on": 2, "precision": 2, "batch_dependent": 2, "observed": 2, "primes": 3, "arena": 4}
"""Keys that no document of an older format has; `arena` as it is now."""
_PORT_SINCE_3 = frozenset({"axes", "feeds", "earlier_nodes"})
"""Keys that no port has in a document of an older format."""

DType = Literal["bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64"]
Name = Annotated[str, Field(min_length=1, max_length=128)]
Size = Annotated[int, Field(ge=1)]


class ContractError(CarouselError):
    """The document is missing, is not a contract, or contradicts itself or its graph."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Port(_Part):
    """A named input or output of the graph, `[B, T, *shape]`."""

    name: Name
    dtype: DType
    shape: tuple[Size, ...] = ()
    """Shape of one step of one session; `()` is a scalar, such as a token."""
    meaning: str = ""
    """For people and for generic clients: what the numbers are ("token", "logits", "temperature in K")."""
    vocabulary: tuple[str, ...] | None = None
    """Integer ports: token k stands for `vocabulary[k]`; any other number is refused.
    Float ports: position k of the last axis belongs to `vocabulary[k]`."""
    unknown: Annotated[int, Field(ge=0)] | None = None
    """The token that stands for every symbol outside the vocabulary."""
    axes: tuple[Literal["batch", "time", "node"], ...] = ("batch", "time")
    """What comes before `shape`. Step graphs have batch and time; whole-input graphs may have nodes of trees, or a batch
    without time: one answer for a whole sequence."""
    feeds: Name | None = None
    """Outputs: the input that these values are for one step later. A float output with a vocabulary that feeds an integer
    input does so through a token drawn from it."""
    earlier_nodes: bool = False
    """Integer ports of nodes: the values are numbers of nodes that come before it, -1 is none. What else is in them is
    for the service to refuse: the graph would take it for another node."""

    @property
    def size(self) -> int:
        """Number of elements of one step."""
        return math.prod(self.shape)

    @model_validator(mode="after")
    def _vocabulary_fits(self) -> Self:
        if self.unknown is not None and self.unknown >= len(self.vocabulary or ()):
            raise ValueError(f"{self.name}: unknown token {self.unknown} is outside the vocabulary")
        if (
            self.vocabulary is not None
            and "float" in self.dtype
            and self.shape[-1:] != (len(self.vocabulary),)
        ):
            raise ValueError(
                f"{self.name}: {len(self.vocabulary)} symbols for an output of shape {self.shape}"
            )
        return self


class Plane(_Part):
    """A typed matrix of state `[B, size]`: one graph input and, unless it is read-only, one graph output."""

    input: Name
    output: Name | None
    """None: read-only. The service gathers the plane and never writes it."""
    dtype: DType
    size: Size


class Segment(_Part):
    """Where one part of the recurrent state lies in its plane, such as `layer0.cell`."""

    name: Name
    start: Annotated[int, Field(ge=0)]
    size: Size


class Signature(_Part):
    """Only models with equal signatures may exchange state rows."""

    layout: Name
    """Hash of everything that gives the row and the ports their meaning."""
    lineage: Name
    """New with each fresh training; inherited by fine-tuning, re-export and quantisation."""


class Provenance(_Part):
    """Where the weights come from."""

    recipe: dict[str, Any] = {}
    data_sha256: str = ""
    metrics: dict[str, float] = {}
    revision: str = ""
    created: str = ""
    """UTC, ISO 8601."""


class Arena(_Part):
    """Names of what says which rows of the planes `[N, size]` a run reads and writes, and what became of them.

    A run writes rows that it does not read, so that it can fail or be repeated; the caller then says which are current.
    No row is written twice in a run, and none is negative: the graph would take it from the end.
    """

    read_rows: Name
    """An int64 input `[B]`."""
    write_rows: Name
    """An int64 input `[B]`."""
    finite: Name
    """A float32 output `[B]`: 0 where all numbers of the row that was written are finite, NaN elsewhere."""


class Observed(_Part):
    """The float32 output `[B, len(statistics)]` with what the gates did in a run, a mean over each row's steps."""

    output: Name
    statistics: Annotated[tuple[Name, ...], Field(min_length=1)]
    """What each number is, such as `layer0.forget.mean`."""


class Contract(_Part):
    """What a step graph promises. The service learns everything about a model from here."""

    format: Literal[1, 2, 3, 4] = 1
    """The oldest that says everything: releases that read format 1 alone go on reading most models."""
    kind: Literal["step", "whole", "priming"] = "step"
    """Step: advances sessions. Whole: needs all of its input at once and has no state.
    Priming: a whole-input graph whose outputs are the planes that sessions of a step graph begin with."""
    form: Literal["rows", "arena"] = "rows"
    """Rows: state planes `[B, size]` go in and come out, gathered and scattered outside the graph.
    Arena: planes `[N, size]` of all sessions go in and come out in the same memory, some of their rows changed."""
    task: Name
    recurrence: Name
    """For people: which cell, how many layers. The service never looks at it."""
    inputs: Annotated[tuple[Port, ...], Field(min_length=1)]
    outputs: Annotated[tuple[Port, ...], Field(min_length=1)]
    lengths: Annotated[str, Field(max_length=128)]
    """The int32 input `[B]` with the number of steps of each row, 1 or more; empty where nothing has a time axis."""
    planes: tuple[Plane, ...]
    """Of a step graph: the state row, and after it those that are read-only. None of others."""
    segments: tuple[Segment, ...]
    """Of the state row."""
    initial: tuple[float, ...] | None = None
    """The state row of a session that has made no step; None: zeros."""
    max_steps: Size = 4096
    """Longest run in steps, or most nodes, that the graph was verified for."""
    invariant: bool
    """Whether results were shown to be bit-identical for any batch-mates, batch size and chunking (CPU)."""
    signature: Signature
    provenance: Provenance = Provenance()
    arena: Arena | None = None
    """Of the arena form."""
    runs_on: Literal["cpu", "cuda"] = "cpu"
    """cuda: every operator has a kernel in ONNX Runtime's CUDA provider."""
    precision: Literal["fp32", "fp16", "int8-weights", "int8-dynamic"] = "fp32"
    """Of the arithmetic; planes and ports are what they say, whatever it is."""
    batch_dependent: bool = False
    """Whether batch-mates change a session's results by more than rounding does."""
    observed: Observed | None = None
    primes: Signature | None = None
    """Of a priming graph: the step graph whose sessions it begins."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        names = [port.name for port in (*self.inputs, *self.outputs)]
        planes = (name for plane in self.planes for name in (plane.input, plane.output))
        names += filter(None, [self.lengths, *planes])
        names += [] if self.arena is None else self.arena.model_dump().values()
        names += [] if self.observed is None else [self.observed.output]
        if len(set(names)) != len(names):
            raise ValueError(f"a name is used twice among {sorted(names)}")
        if (self.form == "arena") != (self.arena is not None):
            raise ValueError(f"form {self.form} {'without' if self.arena is None else 'with'} an arena")
        self._check_format()
        self._check_planes()
        self._check_ports()
        if sum(segment.size for segment in self.segments) != self.state_size:
            raise ValueError(f"segments do not add up to the state size {self.state_size}")
        if self.initial is not None and len(self.initial) != self.state_size:
            raise ValueError(f"initial row has {len(self.initial)} values, expected {self.state_size}")
        if self.signature.layout != self.layout_hash():
            raise ValueError("signature does not belong to this layout")
        return self

    def _check_format(self) -> None:
        for since, key in (newer for newer in self._newer_keys() if self.format < newer[0]):
            raise ValueError(f"{key} needs format {since}")

    def _newer_keys(self) -> list[tuple[int, str]]:
        """What format 1 cannot say, each with the format that can, oldest first."""
        said = self.model_dump(exclude_defaults=True)
        ports = (*said["inputs"], *said["outputs"])
        newer = [(since, key) for key, since in _SINCE.items() if key in said]
        newer += [(3, key) for port in ports for key in _PORT_SINCE_3 & port.keys()]
        newer += [(3, "kind")] if "kind" in said else []
        newer += [(3, "planes")] if len(self.planes) > 1 else []
        return sorted(newer)

    def _check_planes(self) -> None:
        if (self.kind == "priming") != (self.primes is not None):
            raise ValueError(f"kind {self.kind} {'without' if self.primes is None else 'with'} primes")
        if self.kind != "step":
            if self.planes:
                raise ValueError(f"kind {self.kind} with planes")
            return
        read_only = [plane.output is None for plane in self.planes]
        if read_only[:1] != [False] or not all(read_only[1:]):
            raise ValueError("expected one plane that is written and after it those that are read-only")

    def _check_ports(self) -> None:
        ports = (*self.inputs, *self.outputs)
        if self.kind == "step" and any(port.axes != ("batch", "time") for port in ports):
            raise ValueError("ports of a step graph have the axes batch and time")
        if any("time" in port.axes for port in ports) != bool(self.lengths):
            raise ValueError(f"a time axis {'without' if not self.lengths else 'is missing beside'} lengths")
        fed = {port.name for port in self.inputs}
        for port in self.outputs:
            if port.feeds is not None and port.feeds not in fed:
                raise ValueError(f"{port.name} feeds {port.feeds!r}, expected one of {sorted(fed)}")

    def in_oldest_format(self) -> Self:
        """The same, written so that as many releases as possible can read it."""
        needed = max((since for since, _ in self._newer_keys()), default=1)
        return self.model_copy(update={"format": needed})

    @property
    def state_size(self) -> int:
        """S, the number of elements of one state row; 0 without a state."""
        return self.planes[0].size if self.planes else 0

    def layout_hash(self) -> str:
        """Hash of what a state row means and of the steps it can take."""
        return layout_hash(self.recurrence, self.inputs, self.outputs, self.planes, self.segments)

    def to_json(self) -> str:
        """The document as it is stored in the ONNX file."""
        newer = {key for key, since in _SINCE.items() if self.format < since}
        document = self.model_dump(mode="json", exclude=newer)
        for port in (*document["inputs"], *document["outputs"]) if self.format < 3 else ():
            for key in _PORT_SINCE_3:
                del port[key]
        return json.dumps(document)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a contract.

        Raises:
            ContractError: one line that says what is wrong.
        """
        try:
            document = json.loads(text)
            found = document.get("format")
        except (ValueError, AttributeError) as error:
            raise ContractError("the contract is not a JSON object") from error
        if found not in range(1, FORMAT + 1):
            raise ContractError(f"the contract has format {found!r}, this release reads format 1 to {FORMAT}")
        if found < (needed := _SINCE["arena"]) and document.get("arena"):
            raise ContractError(
                f"the contract has an arena of format {found}, this release reads those of format {needed}; "
                "export it again with `carousel export --for cuda`"
            )
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ContractError(f"the contract is damaged: {first_mistake(error)}") from error


def layout_hash(
    recurrence: str,
    inputs: tuple[Port, ...],
    outputs: tuple[Port, ...],
    planes: tuple[Plane, ...],
    segments: tuple[Segment, ...],
) -> str:
    """Hash of a state row's meaning: the same hash means that the same numbers mean the same thing."""
    parts = [recurrence, *(_meaning(part) for part in (*inputs, *outputs, *planes, *segments))]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _meaning(part: _Part) -> dict[str, Any]:
    """What a hash is made of: the keys that came later count only where they say something about the layout."""
    document = part.model_dump(mode="json")
    document.pop("feeds", None)
    for key, default in (("axes", ["batch", "time"]), ("earlier_nodes", False)):
        if document.get(key) == default:
            del document[key]
    return document
