from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    INVALID_INPUT: _ClassVar[Reason]
    CONTENT_DIFFERS: _ClassVar[Reason]
    MODEL_NOT_FOUND: _ClassVar[Reason]
    SESSION_NOT_FOUND: _ClassVar[Reason]
    SESSION_EXPIRED: _ClassVar[Reason]
    SESSION_CLOSED: _ClassVar[Reason]
    SESSION_EVICTED: _ClassVar[Reason]
    SESSION_LOST: _ClassVar[Reason]
    SESSION_EXISTS: _ClassVar[Reason]
    INDEX_UNEXPECTED: _ClassVar[Reason]
    WINDOW_FULL: _ClassVar[Reason]
    QUEUE_FULL: _ClassVar[Reason]
    SESSION_LIMIT: _ClassVar[Reason]
    DRAINING: _ClassVar[Reason]
    BACKEND_FAILED: _ClassVar[Reason]
    STATE_NOT_FINITE: _ClassVar[Reason]
    UNAUTHENTICATED: _ClassVar[Reason]
    NOT_ALLOWED: _ClassVar[Reason]
    QUOTA_EXCEEDED: _ClassVar[Reason]
    SNAPSHOT_REFUSED: _ClassVar[Reason]
    MODEL_DIFFERS: _ClassVar[Reason]
    MODEL_FAILED: _ClassVar[Reason]
REASON_UNSPECIFIED: Reason
INVALID_INPUT: Reason
CONTENT_DIFFERS: Reason
MODEL_NOT_FOUND: Reason
SESSION_NOT_FOUND: Reason
SESSION_EXPIRED: Reason
SESSION_CLOSED: Reason
SESSION_EVICTED: Reason
SESSION_LOST: Reason
SESSION_EXISTS: Reason
INDEX_UNEXPECTED: Reason
WINDOW_FULL: Reason
QUEUE_FULL: Reason
SESSION_LIMIT: Reason
DRAINING: Reason
BACKEND_FAILED: Reason
STATE_NOT_FINITE: Reason
UNAUTHENTICATED: Reason
NOT_ALLOWED: Reason
QUOTA_EXCEEDED: Reason
SNAPSHOT_REFUSED: Reason
MODEL_DIFFERS: Reason
MODEL_FAILED: Reason

class StreamRequest(_message.Message):
    __slots__ = ("attach", "steps")
    ATTACH_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    attach: Attach
    steps: StepFrame
    def __init__(self, attach: _Optional[_Union[Attach, _Mapping]] = ..., steps: _Optional[_Union[StepFrame, _Mapping]] = ...) -> None: ...

class StreamResponse(_message.Message):
    __slots__ = ("attached", "answers")
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    attached: Attached
    answers: AnswerFrame
    def __init__(self, attached: _Optional[_Union[Attached, _Mapping]] = ..., answers: _Optional[_Union[AnswerFrame, _Mapping]] = ...) -> None: ...

class Attach(_message.Message):
    __slots__ = ("sessions",)
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, sessions: _Optional[_Iterable[str]] = ...) -> None: ...

class Attached(_message.Message):
    __slots__ = ("first_handle", "next_indices", "errors")
    FIRST_HANDLE_FIELD_NUMBER: _ClassVar[int]
    NEXT_INDICES_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    first_handle: int
    next_indices: _containers.RepeatedScalarFieldContainer[int]
    errors: _containers.RepeatedCompositeFieldContainer[ChunkError]
    def __init__(self, first_handle: _Optional[int] = ..., next_indices: _Optional[_Iterable[int]] = ..., errors: _Optional[_Iterable[_Union[ChunkError, _Mapping]]] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("name", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    data: bytes
    def __init__(self, name: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class StepFrame(_message.Message):
    __slots__ = ("handles", "first_indices", "lengths", "acknowledged", "inputs")
    HANDLES_FIELD_NUMBER: _ClassVar[int]
    FIRST_INDICES_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    handles: _containers.RepeatedScalarFieldContainer[int]
    first_indices: _containers.RepeatedScalarFieldContainer[int]
    lengths: _containers.RepeatedScalarFieldContainer[int]
    acknowledged: _containers.RepeatedScalarFieldContainer[int]
    inputs: _containers.RepeatedCompositeFieldContainer[Tensor]
    def __init__(self, handles: _Optional[_Iterable[int]] = ..., first_indices: _Optional[_Iterable[int]] = ..., lengths: _Optional[_Iterable[int]] = ..., acknowledged: _Optional[_Iterable[int]] = ..., inputs: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ...) -> None: ...

class AnswerFrame(_message.Message):
    __slots__ = ("handles", "first_indices", "lengths", "outputs", "errors", "model", "version")
    HANDLES_FIELD_NUMBER: _ClassVar[int]
    FIRST_INDICES_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    handles: _containers.RepeatedScalarFieldContainer[int]
    first_indices: _containers.RepeatedScalarFieldContainer[int]
    lengths: _containers.RepeatedScalarFieldContainer[int]
    outputs: _containers.RepeatedCompositeFieldContainer[Tensor]
    errors: _containers.RepeatedCompositeFieldContainer[ChunkError]
    model: str
    version: str
    def __init__(self, handles: _Optional[_Iterable[int]] = ..., first_indices: _Optional[_Iterable[int]] = ..., lengths: _Optional[_Iterable[int]] = ..., outputs: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., errors: _Optional[_Iterable[_Union[ChunkError, _Mapping]]] = ..., model: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class ChunkError(_message.Message):
    __slots__ = ("position", "code", "reason", "message", "expected_index")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_INDEX_FIELD_NUMBER: _ClassVar[int]
    position: int
    code: int
    reason: Reason
    message: str
    expected_index: int
    def __init__(self, position: _Optional[int] = ..., code: _Optional[int] = ..., reason: _Optional[_Union[Reason, str]] = ..., message: _Optional[str] = ..., expected_index: _Optional[int] = ...) -> None: ...

class StepRequest(_message.Message):
    __slots__ = ("session", "first_index", "length", "acknowledged", "inputs")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    session: str
    first_index: int
    length: int
    acknowledged: int
    inputs: _containers.RepeatedCompositeFieldContainer[Tensor]
    def __init__(self, session: _Optional[str] = ..., first_index: _Optional[int] = ..., length: _Optional[int] = ..., acknowledged: _Optional[int] = ..., inputs: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ...) -> None: ...

class StepResponse(_message.Message):
    __slots__ = ("first_index", "length", "outputs", "model", "version")
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    first_index: int
    length: int
    outputs: _containers.RepeatedCompositeFieldContainer[Tensor]
    model: str
    version: str
    def __init__(self, first_index: _Optional[int] = ..., length: _Optional[int] = ..., outputs: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., model: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class OpenRequest(_message.Message):
    __slots__ = ("model", "version", "session", "request_id", "time_to_live_s", "snapshot", "priming")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_LIVE_S_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    PRIMING_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    session: str
    request_id: str
    time_to_live_s: float
    snapshot: bytes
    priming: _containers.RepeatedCompositeFieldContainer[Array]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., session: _Optional[str] = ..., request_id: _Optional[str] = ..., time_to_live_s: _Optional[float] = ..., snapshot: _Optional[bytes] = ..., priming: _Optional[_Iterable[_Union[Array, _Mapping]]] = ...) -> None: ...

class OpenResponse(_message.Message):
    __slots__ = ("session", "model", "version", "time_to_live_s", "next_index")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_LIVE_S_FIELD_NUMBER: _ClassVar[int]
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    session: str
    model: str
    version: str
    time_to_live_s: float
    next_index: int
    def __init__(self, session: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., time_to_live_s: _Optional[float] = ..., next_index: _Optional[int] = ...) -> None: ...

class ForkRequest(_message.Message):
    __slots__ = ("session", "count", "copies", "request_id")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    COPIES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    session: str
    count: int
    copies: _containers.RepeatedScalarFieldContainer[str]
    request_id: str
    def __init__(self, session: _Optional[str] = ..., count: _Optional[int] = ..., copies: _Optional[_Iterable[str]] = ..., request_id: _Optional[str] = ...) -> None: ...

class ForkResponse(_message.Message):
    __slots__ = ("copies", "next_index")
    COPIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    copies: _containers.RepeatedScalarFieldContainer[str]
    next_index: int
    def __init__(self, copies: _Optional[_Iterable[str]] = ..., next_index: _Optional[int] = ...) -> None: ...

class SnapshotRequest(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: str
    def __init__(self, session: _Optional[str] = ...) -> None: ...

class SnapshotResponse(_message.Message):
    __slots__ = ("snapshot", "next_index")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    snapshot: bytes
    next_index: int
    def __init__(self, snapshot: _Optional[bytes] = ..., next_index: _Optional[int] = ...) -> None: ...

class RestoreRequest(_message.Message):
    __slots__ = ("session", "snapshot", "request_id")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    session: str
    snapshot: bytes
    request_id: str
    def __init__(self, session: _Optional[str] = ..., snapshot: _Optional[bytes] = ..., request_id: _Optional[str] = ...) -> None: ...

class RestoreResponse(_message.Message):
    __slots__ = ("next_index",)
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    next_index: int
    def __init__(self, next_index: _Optional[int] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: str
    def __init__(self, session: _Optional[str] = ...) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("session", "model", "version", "next_index", "queued_chunks", "kept_answers", "kept_bytes", "expires_in_s", "pinned", "owner", "observed")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    QUEUED_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    KEPT_ANSWERS_FIELD_NUMBER: _ClassVar[int]
    KEPT_BYTES_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_S_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_FIELD_NUMBER: _ClassVar[int]
    session: str
    model: str
    version: str
    next_index: int
    queued_chunks: int
    kept_answers: int
    kept_bytes: int
    expires_in_s: float
    pinned: bool
    owner: str
    observed: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, session: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., next_index: _Optional[int] = ..., queued_chunks: _Optional[int] = ..., kept_answers: _Optional[int] = ..., kept_bytes: _Optional[int] = ..., expires_in_s: _Optional[float] = ..., pinned: bool = ..., owner: _Optional[str] = ..., observed: _Optional[_Iterable[float]] = ...) -> None: ...

class ListSessionsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "model", "prefix", "all_owners")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    ALL_OWNERS_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    model: str
    prefix: str
    all_owners: bool
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., model: _Optional[str] = ..., prefix: _Optional[str] = ..., all_owners: bool = ...) -> None: ...

class ListSessionsResponse(_message.Message):
    __slots__ = ("sessions", "next_page_token")
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[DescribeResponse]
    next_page_token: str
    def __init__(self, sessions: _Optional[_Iterable[_Union[DescribeResponse, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class TouchRequest(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: str
    def __init__(self, session: _Optional[str] = ...) -> None: ...

class TouchResponse(_message.Message):
    __slots__ = ("expires_in_s",)
    EXPIRES_IN_S_FIELD_NUMBER: _ClassVar[int]
    expires_in_s: float
    def __init__(self, expires_in_s: _Optional[float] = ...) -> None: ...

class CloseRequest(_message.Message):
    __slots__ = ("session", "request_id")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    session: str
    request_id: str
    def __init__(self, session: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class CloseResponse(_message.Message):
    __slots__ = ("steps",)
    STEPS_FIELD_NUMBER: _ClassVar[int]
    steps: int
    def __init__(self, steps: _Optional[int] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("session", "prompt", "first_index", "max_tokens", "temperature", "top_k", "top_p", "seed", "stop", "request_id")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    session: str
    prompt: _containers.RepeatedScalarFieldContainer[int]
    first_index: int
    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    seed: int
    stop: _containers.RepeatedScalarFieldContainer[int]
    request_id: str
    def __init__(self, session: _Optional[str] = ..., prompt: _Optional[_Iterable[int]] = ..., first_index: _Optional[int] = ..., max_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., seed: _Optional[int] = ..., stop: _Optional[_Iterable[int]] = ..., request_id: _Optional[str] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("tokens", "first_index", "finish", "model", "version")
    class Finish(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FINISH_UNSPECIFIED: _ClassVar[GenerateResponse.Finish]
        MAX_TOKENS: _ClassVar[GenerateResponse.Finish]
        STOP_TOKEN: _ClassVar[GenerateResponse.Finish]
    FINISH_UNSPECIFIED: GenerateResponse.Finish
    MAX_TOKENS: GenerateResponse.Finish
    STOP_TOKEN: GenerateResponse.Finish
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[int]
    first_index: int
    finish: GenerateResponse.Finish
    model: str
    version: str
    def __init__(self, tokens: _Optional[_Iterable[int]] = ..., first_index: _Optional[int] = ..., finish: _Optional[_Union[GenerateResponse.Finish, str]] = ..., model: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class ForecastRequest(_message.Message):
    __slots__ = ("session", "steps", "scenarios")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SCENARIOS_FIELD_NUMBER: _ClassVar[int]
    session: str
    steps: int
    scenarios: _containers.RepeatedCompositeFieldContainer[Scenario]
    def __init__(self, session: _Optional[str] = ..., steps: _Optional[int] = ..., scenarios: _Optional[_Iterable[_Union[Scenario, _Mapping]]] = ...) -> None: ...

class Scenario(_message.Message):
    __slots__ = ("inputs",)
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    inputs: _containers.RepeatedCompositeFieldContainer[Tensor]
    def __init__(self, inputs: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ...) -> None: ...

class ForecastResponse(_message.Message):
    __slots__ = ("next_index", "scenarios", "model", "version")
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    SCENARIOS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    next_index: int
    scenarios: _containers.RepeatedCompositeFieldContainer[Forecasted]
    model: str
    version: str
    def __init__(self, next_index: _Optional[int] = ..., scenarios: _Optional[_Iterable[_Union[Forecasted, _Mapping]]] = ..., model: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class Forecasted(_message.Message):
    __slots__ = ("outputs",)
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    outputs: _containers.RepeatedCompositeFieldContainer[Tensor]
    def __init__(self, outputs: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ...) -> None: ...

class Array(_message.Message):
    __slots__ = ("name", "shape", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class InferRequest(_message.Message):
    __slots__ = ("model", "version", "inputs")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    inputs: _containers.RepeatedCompositeFieldContainer[Array]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[Array, _Mapping]]] = ...) -> None: ...

class InferResponse(_message.Message):
    __slots__ = ("outputs", "model", "version")
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    outputs: _containers.RepeatedCompositeFieldContainer[Array]
    model: str
    version: str
    def __init__(self, outputs: _Optional[_Iterable[_Union[Array, _Mapping]]] = ..., model: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "contract", "limits", "state", "error", "sessions", "priming_contract")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Model.State]
        SERVING: _ClassVar[Model.State]
        RETIRING: _ClassVar[Model.State]
        FAILED: _ClassVar[Model.State]
    STATE_UNSPECIFIED: Model.State
    SERVING: Model.State
    RETIRING: Model.State
    FAILED: Model.State
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    PRIMING_CONTRACT_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    contract: str
    limits: Limits
    state: Model.State
    error: str
    sessions: int
    priming_contract: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., contract: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., state: _Optional[_Union[Model.State, str]] = ..., error: _Optional[str] = ..., sessions: _Optional[int] = ..., priming_contract: _Optional[str] = ...) -> None: ...

class LoadModelRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class LoadModelResponse(_message.Message):
    __slots__ = ("model", "took_over")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TOOK_OVER_FIELD_NUMBER: _ClassVar[int]
    model: Model
    took_over: bool
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ..., took_over: bool = ...) -> None: ...

class UnloadModelRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class UnloadModelResponse(_message.Message):
    __slots__ = ("sessions",)
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    sessions: int
    def __init__(self, sessions: _Optional[int] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("chunk_steps", "window_chunks", "window_bytes", "message_bytes", "stream_chunks")
    CHUNK_STEPS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_BYTES_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    STREAM_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    chunk_steps: int
    window_chunks: int
    window_bytes: int
    message_bytes: int
    stream_chunks: int
    def __init__(self, chunk_steps: _Optional[int] = ..., window_chunks: _Optional[int] = ..., window_bytes: _Optional[int] = ..., message_bytes: _Optional[int] = ..., stream_chunks: _Optional[int] = ...) -> None: ...
