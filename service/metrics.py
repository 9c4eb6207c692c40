"""Every metric of the service. Base units; labels only from closed sets (models, methods, codes, reasons)."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_CHUNKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """Counters, gauges and histograms of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests()
        self._chunks()
        self._runs()
        self._sessions()

    def watch(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Add a gauge that is read when it is scraped."""
        Gauge(name, help_text, registry=self.registry).set_function(value)

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

    def _chunks(self) -> None:
        registry, model = self.registry, ["model"]
        self.steps = Counter("carousel_steps", "Steps committed.", model, registry=registry)
        self.chunks = Counter("carousel_chunks", "Chunks committed.", model, registry=registry)
        self.replays = Counter(
            "carousel_replays", "Repeated chunks answered from what was kept.", registry=registry
        )
        self.joins = Counter(
            "carousel_joins", "Repeated chunks that joined a queued or running one.", registry=registry
        )
        self.refused = Counter("carousel_refused", "Chunks and calls refused.", ["reason"], registry=registry)
        self.dropped = Counter(
            "carousel_dropped_chunks", "Queued chunks whose callers had left.", registry=registry
        )

    def _runs(self) -> None:
        registry, model = self.registry, ["model"]
        self.batch_chunks = Histogram(
            "carousel_batch_chunks",
            "Sessions advanced by one run.",
            model,
            buckets=_CHUNKS,
            registry=registry,
        )
        self.padding = Counter("carousel_padding_steps", "Steps run for nobody.", model, registry=registry)
        self.run_seconds = Histogram(
            "carousel_run_duration_seconds",
            "Time of one run in the runtime.",
            model,
            buckets=_SECONDS,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "carousel_queue_duration_seconds",
            "Time from admission to the start of a chunk's first run.",
            model,
            buckets=_SECONDS,
            registry=registry,
        )
        self.failed_runs = Counter(
            "carousel_failed_runs", "Runs that raised an error.", model, registry=registry
        )
        self.not_finite = Counter(
            "carousel_nonfinite_states",
            "Chunks refused because the state became NaN or infinite.",
            model,
            registry=registry,
        )

    def _sessions(self) -> None:
        registry = self.registry
        self.opened = Counter("carousel_sessions_opened", "Sessions opened.", registry=registry)
        self.ended = Counter("carousel_sessions_ended", "Sessions that ended.", ["reason"], registry=registry)
