"""A histogram that counts a batch at once reads as if its values had been observed one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.histogram import BatchHistogram

BOUNDS = (0.0001, 0.25, 0.5, 1, 2.5, 10)

# Multiples of 1/8 add up exactly, in any order. Some are bounds, some lie beyond the last.
observations = st.lists(
    st.tuples(
        st.sampled_from(["a/1", 'b"\\/2']), st.integers(0, 100).map(lambda k: k / 8), st.integers(1, 64)
    ),
    max_size=20,
)


def scraped(registry: CollectorRegistry) -> dict[str, object]:
    """What Prometheus reads, but for the times of creation, which it does not ask for."""
    families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    return {
        family.name: (
            family.type,
            family.documentation,
            {(s.name, *sorted(s.labels.items())): s.value for s in family.samples},
        )
        for family in families
        if not family.name.endswith("_created")
    }


@given(observations)
def test_a_scraper_reads_what_the_library_would_have_told_it(observed: list[tuple[str, float, int]]) -> None:
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    reference = Histogram("h", "What is seen.", ["model"], buckets=BOUNDS, registry=theirs)
    batched = BatchHistogram("h", "What is seen.", BOUNDS)
    ours.register(batched)
    for model, value, count in observed:
        batched.labels(model).observe(value, count)
        for _ in range(count):
            reference.labels(model).observe(value)
    assert scraped(ours) == scraped(theirs)


def test_a_value_on_a_bound_is_below_it_and_one_beyond_the_last_is_counted_too() -> None:
    registry = CollectorRegistry()
    histogram = BatchHistogram("h", "Seen.", (1, 2))
    registry.register(histogram)
    for value in (1.0, 1.5, 2.0, 7.0):
        histogram.labels("m").observe(value)
    counts = [
        registry.get_sample_value("h_bucket", {"model": "m", "le": le}) for le in ("1.0", "2.0", "+Inf")
    ]
    assert counts == [1, 3, 4]
    assert registry.get_sample_value("h_sum", {"model": "m"}) == 11.5
    assert registry.get_sample_value("h_count", {"model": "m"}) == 4


def test_a_model_that_has_seen_nothing_shows_empty_buckets() -> None:
    registry = CollectorRegistry()
    histogram = BatchHistogram("h", "Seen.", (1, 2))
    registry.register(histogram)
    assert histogram.labels("m") is histogram.labels("m")
    assert registry.get_sample_value("h_count", {"model": "m"}) == 0
    assert registry.get_sample_value("h_bucket", {"model": "m", "le": "+Inf"}) == 0


def test_two_histograms_of_one_name_are_refused_by_the_registry() -> None:
    registry = CollectorRegistry()
    registry.register(BatchHistogram("h", "Seen.", (1,)))
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(BatchHistogram("h", "Seen.", (1,)))
