"""What `carousel top` makes of two scrapes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from cli.top_figures import Scrape, figures, parse, quantile
from service.histogram import BatchHistogram
from service.metrics import Metrics

INF = math.inf


@pytest.mark.parametrize(
    ("q", "buckets", "expected"),
    [
        # 100 values evenly from 0 to 1: the quantile is q itself.
        (0.5, [(0.25, 25), (0.5, 50), (0.75, 75), (1.0, 100), (INF, 100)], 0.5),
        (0.99, [(0.25, 25), (0.5, 50), (0.75, 75), (1.0, 100), (INF, 100)], 0.99),
        (0.6, [(0.25, 25), (0.5, 50), (0.75, 75), (1.0, 100), (INF, 100)], 0.6),
        # All in one bucket: its middle.
        (0.5, [(1, 0), (3, 8), (5, 8), (INF, 8)], 2),
        # Empty buckets between two heaps.
        (0.5, [(1, 4), (2, 4), (3, 4), (4, 8), (INF, 8)], 1),
        (0.75, [(1, 4), (2, 4), (3, 4), (4, 8), (INF, 8)], 3.5),
        # Beyond the last finite bound nothing is known but that.
        (0.99, [(1, 1), (2, 2), (INF, 100)], 2),
        (0.0, [(1, 0), (2, 2), (INF, 2)], 1),
        (1.0, [(1, 1), (2, 2), (INF, 2)], 2),
    ],
)
def test_a_quantile_lies_where_prometheus_puts_it(
    q: float, buckets: list[tuple[float, float]], expected: float
) -> None:
    assert quantile(q, buckets) == pytest.approx(expected)


@pytest.mark.parametrize("buckets", [[], [(1, 0), (INF, 0)]])
def test_a_histogram_without_values_has_no_quantile(buckets: list[tuple[float, float]]) -> None:
    assert math.isnan(quantile(0.5, buckets))


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50), st.floats(0.01, 1))
def test_a_quantile_shares_its_bucket_with_the_value_of_that_rank(values: list[float], q: float) -> None:
    bounds = [1.0, 2, 4, 8, 16]
    buckets = [(bound, float(sum(value <= bound for value in values))) for bound in (*bounds, INF)]
    true = np.quantile(values, q, method="inverted_cdf")
    bucket = np.searchsorted(bounds, true)
    assert ([0.0, *bounds])[bucket] <= quantile(q, buckets) <= bounds[bucket]


def scrape(metrics: Metrics, at_s: float) -> Scrape:
    return parse(generate_latest(metrics.registry).decode(), at_s)


def test_figures_are_what_happened_between_the_scrapes() -> None:
    metrics = Metrics()
    model = metrics.of_model("tiny/1")
    open_sessions = 10
    metrics.watch("carousel_ready", "", lambda: 1)
    metrics.watch("carousel_sessions", "", lambda: open_sessions)
    metrics.watch("carousel_sessions_spilled", "", lambda: 4)
    for _ in range(100):  # long ago
        model.run_seconds.observe(2.0)
        model.steps.inc(1000)
    metrics.refused.labels("QUEUE_FULL").inc(50)
    before = scrape(metrics, 10.0)
    for _ in range(10):
        model.run_seconds.observe(0.00075)
        model.batch_chunks.observe(8)
    model.steps.inc(300)
    model.padding.inc(100)
    model.chunks.inc(80)
    model.tokens.inc(40)
    metrics.refused.labels("SESSION_LIMIT").inc(6)
    open_sessions = 12
    shown = figures(before, scrape(metrics, 12.0))
    assert (shown.ready, shown.sessions, shown.spilled, shown.resident) == (True, 12, 4, 8)
    assert shown.refused_per_s == {"SESSION_LIMIT": 3}
    (tiny,) = shown.models
    assert (tiny.model, tiny.steps_per_s, tiny.chunks_per_s) == ("tiny/1", 150, 40)
    assert tiny.tokens_per_s == 20
    assert (tiny.mean_batch, tiny.padding_share) == (8, 0.25)
    assert tiny.run == pytest.approx((0.00075, 0.000995))
    assert math.isnan(tiny.queue.p50_s)
    lines = dict(shown.lines())
    assert lines["resident"] == 8
    assert lines["refused_per_s.SESSION_LIMIT"] == 3
    assert lines["tiny/1.steps_per_s"] == 150
    assert lines["tiny/1.run_p99_s"] == pytest.approx(0.000995)


def test_a_server_that_was_restarted_between_the_scrapes_began_at_0() -> None:
    before, after = Metrics(), Metrics()
    before.of_model("tiny/1").steps.inc(1000)
    after.of_model("tiny/1").steps.inc(10)
    shown = figures(scrape(before, 0), scrape(after, 1))
    assert shown.models[0].steps_per_s == 10


def test_models_have_their_own_figures() -> None:
    metrics = Metrics()
    for name in ("a/1", "b/1"):
        metrics.of_model(name)
    before = scrape(metrics, 0)
    metrics.of_model("b/1").steps.inc(5)
    metrics.of_model("b/1").queue_seconds.observe(0.1)
    a, b = figures(before, scrape(metrics, 1)).models
    assert (a.steps_per_s, b.steps_per_s) == (0, 5)
    assert math.isnan(a.queue.p50_s)
    assert 0.05 < b.queue.p50_s <= 0.1


def test_the_service_draws_its_histograms_as_they_are_read_here() -> None:
    registry = CollectorRegistry()
    histogram = BatchHistogram("h", "", (1, 2, 4))
    registry.register(histogram)
    histogram.labels("m").observe(3, count=10)
    samples = parse(generate_latest(registry).decode(), 0).samples
    buckets = [
        (bound, samples["h_bucket", (("le", text), ("model", "m"))])
        for bound, text in ((1, "1.0"), (2, "2.0"), (4, "4.0"), (INF, "+Inf"))
    ]
    assert quantile(0.5, buckets) == 3
