"""A Prometheus histogram in which one observation counts for many: a batch is looked at once, not chunk by chunk."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class Buckets:
    """The observations of one model. Written by the event loop, read by the scraper's thread."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """The value was seen `count` times."""
        self._counts[bisect_left(self._bounds, value)] += count
        self._sum += value * count

    def cumulative(self) -> tuple[list[tuple[str, float]], float]:
        """Upper bounds with the number of values up to them, and the sum of all values."""
        counts, total, seen = list(self._counts), self._sum, 0.0
        buckets = []
        for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
            seen += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound), seen))
        return buckets, total


class BatchHistogram(Collector):
    """Histograms of one name, one for each model.

    Args:
        name: Without suffix; base units.
        help_text: What is observed.
        bounds: Upper bounds of the buckets, rising, without infinity.
    """

    def __init__(self, name: str, help_text: str, bounds: tuple[float, ...]) -> None:
        self._name = name
        self._help = help_text
        self._bounds = tuple(map(float, bounds))
        self._models: dict[str, Buckets] = {}

    def labels(self, model: str) -> Buckets:
        """The histogram of one model."""
        return self._models.setdefault(model, Buckets(self._bounds))

    def describe(self) -> Iterable[Metric]:
        """Its name and kind."""
        yield HistogramMetricFamily(self._name, self._help, labels=["model"])

    def collect(self) -> Iterator[Metric]:
        """What Prometheus reads."""
        family = HistogramMetricFamily(self._name, self._help, labels=["model"])
        for model, histogram in list(self._models.items()):
            buckets, total = histogram.cumulative()
            family.add_metric([model], buckets, total)
        yield family
