"""Every setting of the service. Command line over environment (`CAROUSEL_...`) over file over default."""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from carousel.errors import CarouselError
from carousel.mistakes import first_mistake
from service.kept import MAX_SESSIONS
from service.log import LogFormat
from service.runtime import CudaOptions, Provider
from service.sessions import MAX_TTL_S

Port = Annotated[int, Field(ge=0, le=65535)]


class SettingsError(CarouselError):
    """A setting is wrong; says which."""


class Settings(BaseSettings):
    """What `carousel serve` can be told. The text under each field is its `--help`."""

    model_config = SettingsConfigDict(
        env_prefix="CAROUSEL_", frozen=True, extra="forbid", use_attribute_docstrings=True
    )

    models: Path
    """folder with models: name/version/model.onnx"""
    poll_models_s: Annotated[float, Field(gt=0)] | None = None
    """seconds between looks into that folder for new versions; default: only LoadModel loads them"""
    host: str = "127.0.0.1"
    """address to listen on"""
    grpc_port: Port = 8001
    """port of the gRPC service; 0 takes a free one"""
    http_port: Port = 8002
    """port of /metrics, /healthz and /readyz; 0 takes a free one"""
    provider: Provider = "cpu"
    """where models run: cpu or cuda"""
    cuda_graphs: bool = False
    """record runs of one step as CUDA graphs, one for each size of batch; for models of `carousel export --single-step`"""
    tf32: bool = False
    """let CUDA round the factors of products to TF32: faster, and further from what was verified"""
    allow_cpu_nodes: bool = False
    """serve models on CUDA though part of them would run on the CPU"""
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    """threads of one run; more than one pays only where whole cores are idle"""
    max_sessions: Annotated[int, Field(ge=1, le=MAX_SESSIONS)] = 100_000
    """open sessions, idle ones included"""
    session_ttl_s: Annotated[float, Field(gt=0, le=MAX_TTL_S)] = 3600.0
    """seconds without a step after which a session expires, unless its client asked otherwise"""
    resident_sessions: Annotated[int, Field(ge=1)] | None = None
    """sessions whose states are in memory; those idle longest go to a file in --state-dir; default: all of them"""
    state_dir: Path | None = None
    """folder for what a planned restart takes along and for states that do not fit into memory"""
    max_queued_chunks: Annotated[int, Field(ge=1)] = 8192
    """chunks waiting or running; more are refused"""
    max_kept_bytes: Annotated[int, Field(ge=1 << 20)] = 1 << 30
    """answers of all sessions that are kept until acknowledged; chunks that would need more are refused"""
    max_batch: Annotated[int, Field(ge=1, le=65536)] = 256
    """sessions advanced by one run"""
    queue_delay_s: Annotated[float, Field(ge=0, le=10)] = 0.0
    """seconds that a batch which is not full waits for more; 0: batches form while a run is under way"""
    run_steps: Annotated[int, Field(ge=1, le=4096)] = 512
    """most steps of one run; longer chunks take several, with others in between"""
    max_message_bytes: Annotated[int, Field(ge=1 << 16, le=1 << 30)] = 16 << 20
    """largest message"""
    slow_run_s: Annotated[float, Field(gt=0)] = 1.0
    """runs that take so many seconds are logged"""
    hung_run_s: Annotated[float, Field(gt=0)] = 60.0
    """a run that takes so many seconds makes the service unhealthy, so that it is restarted"""
    drain_s: Annotated[float, Field(gt=0)] = 30.0
    """seconds to finish queued work after SIGTERM"""
    tls_cert: Path | None = None
    """PEM certificate chain; together with --tls-key, gRPC speaks TLS only"""
    tls_key: Path | None = None
    """PEM private key"""
    tls_client_ca: Path | None = None
    """PEM certificates of the authorities that clients' certificates must come from; every client needs one then"""
    identities: Path | None = None
    """TOML file that says who may call; read again when it changes; default: everybody may do everything"""
    snapshot_key_file: Path | None = None
    """file of 32 bytes or more that snapshots are sealed with; default: a key that this process forgets"""
    log_format: LogFormat = "console"
    """console or json"""

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key: expected both or neither")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca: expected tls_cert and tls_key as well")
        return self

    @property
    def cuda(self) -> CudaOptions:
        """How models run on CUDA."""
        return CudaOptions(self.cuda_graphs, self.tf32, self.allow_cpu_nodes)

    @model_validator(mode="after")
    def _cuda_has_its_provider(self) -> Self:
        for name in ("cuda_graphs", "tf32", "allow_cpu_nodes"):
            if getattr(self, name) and self.provider != "cuda":
                raise ValueError(f"{name}: expected provider cuda, got {self.provider}")
        return self

    @model_validator(mode="after")
    def _spilled_states_have_a_folder(self) -> Self:
        if self.resident_sessions is not None and self.state_dir is None:
            raise ValueError("resident_sessions: expected a state_dir for the states of the others")
        return self

    @classmethod
    def load(cls, given: dict[str, Any], file: Path | None = None) -> Self:
        """Put the settings together.

        Args:
            given: What the command line says; these win.
            file: A TOML file with the fields' names as keys.

        Raises:
            SettingsError: one line naming the setting.
        """
        if file is not None and not file.is_file():
            raise SettingsError(f"{file}: expected a TOML file with settings, found none")

        class FromFile(cls):  # type: ignore[valid-type, misc]
            """The sources of a settings class are fixed by its definition, and the file's name is not."""

            @classmethod
            def settings_customise_sources(
                cls, settings_cls: type[BaseSettings], **sources: PydanticBaseSettingsSource
            ) -> tuple[PydanticBaseSettingsSource, ...]:
                return (
                    sources["init_settings"],
                    sources["env_settings"],
                    TomlConfigSettingsSource(settings_cls, toml_file=file),
                )

        try:
            loaded: Self = FromFile(**given)
        except ValidationError as error:
            raise SettingsError(first_mistake(error)) from error
        except ValueError as error:
            raise SettingsError(f"{file}: not a TOML file: {error}") from error
        return loaded
