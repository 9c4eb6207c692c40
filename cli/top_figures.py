"""What two scrapes of `/metrics` say about the time between them. Pure."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

Labels = tuple[tuple[str, str], ...]


class Scrape(NamedTuple):
    """Every sample of one answer of the server."""

    at_s: float
    """On a clock that only goes forward."""
    samples: dict[tuple[str, Labels], float]


class Quantiles(NamedTuple):
    """Of durations in seconds; NaN where there were none."""

    p50_s: float
    p99_s: float


class ModelFigures(NamedTuple):
    """What one model did between two scrapes."""

    model: str
    steps_per_s: float
    chunks_per_s: float
    mean_batch: float
    """Sessions advanced by one run; NaN without a run."""
    padding_share: float
    """Of all steps run, those run for nobody; NaN without a step."""
    queue: Quantiles
    """From admission to the start of the run."""
    run: Quantiles
    answer: Quantiles
    """From the commit to the answer on the wire; streams only."""
    tokens_per_s: float
    """Drawn by the server's own loops."""

    def figures(self) -> Iterator[tuple[str, float]]:
        """Each figure with its name."""
        for name in ("steps_per_s", "chunks_per_s", "mean_batch", "padding_share", "tokens_per_s"):
            yield name, float(getattr(self, name))
        for name, pair in (("queue", self.queue), ("run", self.run), ("answer", self.answer)):
            yield f"{name}_p50_s", pair.p50_s
            yield f"{name}_p99_s", pair.p99_s


class Figures(NamedTuple):
    """The server at the second scrape, and what it did since the first."""

    ready: bool
    sessions: int
    sessions_limit: int
    spilled: int
    """Sessions whose state is in a file."""
    queued_chunks: int
    streams: int
    refused_per_s: dict[str, float]
    """By reason; those that occurred."""
    models: list[ModelFigures]

    @property
    def resident(self) -> int:
        """Sessions whose state is in memory."""
        return self.sessions - self.spilled

    def lines(self) -> Iterator[tuple[str, float]]:
        """Every figure under a name of its own, for scripts."""
        for name in (
            "ready",
            "sessions",
            "sessions_limit",
            "resident",
            "spilled",
            "queued_chunks",
            "streams",
        ):
            yield name, float(getattr(self, name))
        for reason, rate in self.refused_per_s.items():
            yield f"refused_per_s.{reason}", rate
        for model in self.models:
            for name, value in model.figures():
                yield f"{model.model}.{name}", value


def parse(text: str, at_s: float) -> Scrape:
    """Read the text format of Prometheus.

    Raises:
        ValueError: it is something else.
    """
    families = text_string_to_metric_families(text)
    samples = (sample for family in families for sample in family.samples)
    return Scrape(at_s, {(one.name, tuple(sorted(one.labels.items()))): one.value for one in samples})


def figures(before: Scrape, after: Scrape) -> Figures:
    """What happened between two scrapes of one server; one that was restarted between them began at 0."""
    rates = _Rates(before, after)
    return Figures(
        ready=rates.gauge("carousel_ready") == 1,
        sessions=int(rates.gauge("carousel_sessions")),
        sessions_limit=int(rates.gauge("carousel_sessions_limit")),
        spilled=int(rates.gauge("carousel_sessions_spilled")),
        queued_chunks=int(rates.gauge("carousel_queued_chunks")),
        streams=int(rates.gauge("carousel_streams")),
        refused_per_s={
            reason: rate
            for reason in rates.values_of("carousel_refused_total", "reason")
            if (rate := rates.per_s("carousel_refused_total", ("reason", reason)))
        },
        models=[_model(rates, model) for model in rates.values_of("carousel_steps_total", "model")],
    )


def quantile(q: float, buckets: Sequence[tuple[float, float]]) -> float:
    """A quantile of a histogram, by linear interpolation within its bucket, as Prometheus' `histogram_quantile` does.

    Args:
        q: 0 to 1.
        buckets: Upper bounds, rising to infinity, each with the number of values up to it.

    Returns:
        NaN without values; the highest finite bound for values beyond it.
    """
    total = buckets[-1][1] if buckets else 0.0
    if not total:
        return math.nan
    lower, below = 0.0, 0.0
    for upper, count in buckets:
        if count >= q * total and count > below:
            break
        lower, below = upper, count
    else:
        raise AssertionError("the last bucket holds everything")
    if math.isinf(upper):
        return lower
    return lower + (upper - lower) * max(0.0, q * total - below) / (count - below)


class _Rates:
    """Differences of counters, by their labels."""

    def __init__(self, before: Scrape, after: Scrape) -> None:
        self._before, self._after = before, after
        self._seconds = after.at_s - before.at_s

    def gauge(self, name: str) -> float:
        return self._after.samples.get((name, ()), 0.0)

    def values_of(self, name: str, label: str) -> list[str]:
        return sorted(dict(labels)[label] for found, labels in self._after.samples if found == name)

    def increase(self, name: str, *labels: tuple[str, str]) -> float:
        key = name, tuple(sorted(labels))
        before, after = self._before.samples.get(key, 0.0), self._after.samples.get(key, 0.0)
        return after if after < before else after - before

    def per_s(self, name: str, *labels: tuple[str, str]) -> float:
        return self.increase(name, *labels) / self._seconds

    def quantiles(self, name: str, model: str) -> Quantiles:
        bounds = (
            dict(labels)["le"]
            for found, labels in self._after.samples
            if found == f"{name}_bucket" and ("model", model) in labels
        )
        buckets = sorted(
            (float(bound), self.increase(f"{name}_bucket", ("model", model), ("le", bound)))
            for bound in bounds
        )
        return Quantiles(quantile(0.5, buckets), quantile(0.99, buckets))


def _model(rates: _Rates, model: str) -> ModelFigures:
    label = ("model", model)
    steps = rates.increase("carousel_steps_total", label)
    padding = rates.increase("carousel_padding_steps_total", label)
    return ModelFigures(
        model,
        rates.per_s("carousel_steps_total", label),
        rates.per_s("carousel_chunks_total", label),
        _share(
            rates.increase("carousel_batch_chunks_sum", label),
            rates.increase("carousel_batch_chunks_count", label),
        ),
        _share(padding, steps + padding),
        rates.quantiles("carousel_queue_duration_seconds", model),
        rates.quantiles("carousel_run_duration_seconds", model),
        rates.quantiles("carousel_answer_duration_seconds", model),
        rates.per_s("carousel_generated_tokens_total", label),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
