"""A Prometheus histogram in which one observation counts for many: a batch is looked at once, not chunk by chunk."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
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

    def observe_each(self, values: NDArray[np.floating[Any]]) -> None:
        """Every value was seen once."""
        places, counts = np.unique(np.searchsorted(self._bounds, values), return_counts=True)
        for place, count in zip(places.tolist(), counts.tolist(), strict=True):
            self._counts[place] += count
        self._sum += float(values.sum())

    def cumulative(self) -> tuple[list[tuple[str, float]], float]:
        """Upper bounds with the number of values up to them, and the sum of all values."""
        counts, total, seen = list(self._counts), self._sum, 0.0
        buckets = []
        for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
            seen += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound), seen))
        return buckets, total


class BatchHistogram(Collector):
    """Histograms of one name, one for each set of labels.

    Args:
        name: Without suffix; base units.
        help_text: What is observed.
        bounds: Upper bounds of the buckets, rising, without infinity.
        labels: Their names.
    """

    def __init__(
        self, name: str, help_text: str, bounds: tuple[float, ...], labels: Sequence[str] = ("model",)
    ) -> None:
        self._name = name
        self._help = help_text
        self._bounds = tuple(map(float, bounds))
        self._labels = labels
        self._histograms: dict[tuple[str, ...], Buckets] = {}

    def labels(self, *values: str) -> Buckets:
        """The histogram with these labels."""
        return self._histograms.setdefault(values, Buckets(self._bounds))

    def describe(self) -> Iterable[Metric]:
        """Its name and kind."""
        yield HistogramMetricFamily(self._name, self._help, labels=self._labels)

    def collect(self) -> Iterator[Metric]:
        """What Prometheus reads."""
        family = HistogramMetricFamily(self._name, self._help, labels=self._labels)
        for values, histogram in list(self._histograms.items()):
            buckets, total = histogram.cumulative()
            family.add_metric(values, buckets, total)
        yield family
