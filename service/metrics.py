"""Every metric of the service. Base units; labels only from closed sets (models, methods, codes, reasons)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from carousel.wire.carousel_pb2 import Reason
from service.errors import SessionGoneError
from service.histogram import BatchHistogram, Buckets

REFUSALS = [name for name in Reason.keys() if name != "REASON_UNSPECIFIED"]  # noqa: SIM118 - no mapping
ENDINGS = ("expired", "closed", "evicted", "lost")
_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_GATES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1, 2, 5, 10, 20, 50, 100)
"""Means and shares end at 1; norms of states go on."""
_CHUNKS = (1.0, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """The metrics of one model, looked up once: finding a label's child costs as much as counting."""

    steps: Counter
    chunks: Counter
    batch_chunks: Buckets
    padding: Counter
    tokens: Counter
    run_seconds: Buckets
    queue_seconds: Buckets
    answer_seconds: Buckets
    failed_runs: Counter
    not_finite: Counter


class Metrics:
    """Counters, gauges and histograms of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(namespace="carousel", registry=self.registry)
        self._requests()
        self._sessions()
        self.load_failures = self._counter("model_load_failures", "Versions that could not be loaded.")
        self._gates = BatchHistogram(
            "carousel_gates",
            "What the gates of observed models do, a mean over a session's steps in a run.",
            _GATES,
            ("model", "statistic"),
        )
        self.registry.register(self._gates)
        self._models: dict[str, Any] = {
            "steps": self._counter("steps", "Steps committed."),
            "chunks": self._counter("chunks", "Chunks committed."),
            "batch_chunks": self._histogram("batch_chunks", "Sessions advanced by one run.", _CHUNKS),
            "padding": self._counter("padding_steps", "Steps run for nobody."),
            "tokens": self._counter("generated_tokens", "Tokens drawn by the server's own loops."),
            "run_seconds": self._histogram(
                "run_duration_seconds", "Time of one run in the runtime.", _SECONDS
            ),
            "queue_seconds": self._histogram(
                "queue_duration_seconds", "Time from admission to the start of a chunk's first run.", _SECONDS
            ),
            "answer_seconds": self._histogram(
                "answer_duration_seconds",
                "Time from the commit of a chunk to its answer on the wire.",
                _SECONDS,
            ),
            "failed_runs": self._counter("failed_runs", "Runs that raised an error."),
            "not_finite": self._counter(
                "nonfinite_states", "Chunks refused because the state became NaN or infinite."
            ),
        }

    def of_model(self, key: str) -> ModelMetrics:
        """The metrics of one model, known by name and version."""
        return ModelMetrics(**{name: metric.labels(key) for name, metric in self._models.items()})

    def observe_gates(self, key: str, statistics: Sequence[str], values: NDArray[np.float32]) -> None:
        """What the gates of an observed model did in a run: `[B, K]`, a column for each statistic."""
        for column, statistic in enumerate(statistics):
            self._gates.labels(key, statistic).observe_each(values[:, column])

    def watch_states(self, name: str, help_text: str, values: Mapping[str, Callable[[], float]]) -> None:
        """Add a gauge that is read when it is scraped, with a value for each state."""
        gauge = Gauge(name, help_text, ["state"], registry=self.registry)
        for state, value in values.items():
            gauge.labels(state).set_function(value)

    def count_end(self, reason: type[SessionGoneError]) -> None:
        """A session has ended."""
        self.ended.labels(reason.__name__.removeprefix("Session").removesuffix("Error").lower()).inc()

    def watch(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Add a gauge that is read when it is scraped."""
        Gauge(name, help_text, registry=self.registry).set_function(value)

    def _counter(self, name: str, help_text: str) -> Counter:
        return Counter(f"carousel_{name}", help_text, ["model"], registry=self.registry)

    def _histogram(self, name: str, help_text: str, buckets: tuple[float, ...]) -> BatchHistogram:
        histogram = BatchHistogram(f"carousel_{name}", help_text, buckets)
        self.registry.register(histogram)
        return histogram

    def _requests(self) -> None:
        registry = self.registry
        self.requests = Counter(
            "carousel_requests", "Calls that ended, streams included.", ["method", "code"], registry=registry
        )
        self.request_seconds = Histogram(
            "carousel_request_duration_seconds",
            "Duration of unary calls.",
            ["method"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.streams = Gauge("carousel_streams", "Open streams.", registry=registry)
        self.replays = Counter(
            "carousel_replays", "Repeated chunks answered from what was kept.", registry=registry
        )
        self.joins = Counter(
            "carousel_joins", "Repeated chunks that joined a queued or running one.", registry=registry
        )
        self.refused = Counter("carousel_refused", "Chunks and calls refused.", ["reason"], registry=registry)
        _start_at_zero(self.refused, REFUSALS)
        self.identities_stale = Gauge(
            "carousel_identities_stale",
            "1 while the file of identities cannot be used, and what it said before holds.",
            registry=registry,
        )
        self.dropped = Counter(
            "carousel_dropped_chunks", "Queued chunks whose callers had left.", registry=registry
        )

    def _sessions(self) -> None:
        registry = self.registry
        self.opened = Counter("carousel_sessions_opened", "Sessions opened.", registry=registry)
        self.ended = Counter("carousel_sessions_ended", "Sessions that ended.", ["reason"], registry=registry)
        _start_at_zero(self.ended, ENDINGS)


def _start_at_zero(counter: Counter, reasons: Iterable[str]) -> None:
    """A counter that appears with its first event hides that event from `increase()`."""
    for reason in reasons:
        counter.labels(reason)
