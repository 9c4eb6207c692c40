"""The Grafana dashboard and the alert rules, held against what the service tells."""

import re
from collections import Counter
from itertools import product

import pytest
from prometheus_client.parser import text_string_to_metric_families

from carousel.wire import carousel_pb2 as pb
from tests.contract.test_observability import fetch
from tests.dashboard import DASHBOARD, DEPLOY, PANELS, queries
from tests.wire import open_session, tokens

ALERTS = (DEPLOY / "alerts.yml").read_text()
COMPOSE = (DEPLOY.parent / "docker-compose.yml").read_text()
OF_PROMETHEUS = {
    "up": {"job", "instance"},
    "scrape_duration_seconds": {"job", "instance"},
    "ALERTS": {"alertname", "alertstate", "instance"},
}
"""Series that Prometheus makes itself."""
SELECTOR = re.compile(rf"\b(carousel_\w+|{'|'.join(OF_PROMETHEUS)})\b(?:{{([^}}]*)}})?")
WORDS = re.compile(r"\w+")

Labels = dict[str, set[str]]


@pytest.fixture
async def exposed(server, stub) -> Labels:
    """Labels by sample of `/metrics`, once every labelled metric has moved."""
    session = await open_session(stub)
    step = pb.StepRequest(session=session, first_index=0, length=3, inputs=tokens(1, 2, 3))
    await stub.Step(step)
    await stub.Close(pb.CloseRequest(session=session))
    with pytest.raises(Exception, match="closed"):
        await stub.Step(step)
    _, page = await fetch(server.http_port, "/metrics")
    return OF_PROMETHEUS | {
        sample.name: {*sample.labels, "job", "instance"}
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def asked(query: str) -> Labels:
    """Labels by metric that a query names: its own in braces, and all that `by (...)` groups it by."""
    grouped = {label for group in re.findall(r"\bby \(([^)]*)\)", query) for label in WORDS.findall(group)}
    return {
        name: grouped | set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", braces))
        for name, braces in SELECTOR.findall(query)
    }


def test_a_query_is_read_as_prometheus_reads_it() -> None:
    query = 'sum by (le, a) (rate(carousel_x_bucket{b=~".*",c!="1"}[1m])) / up'
    assert asked(query) == {"carousel_x_bucket": {"le", "a", "b", "c"}, "up": {"le", "a"}}


async def test_every_query_asks_for_metrics_and_labels_that_are_there(exposed: Labels) -> None:
    for title, query in queries():
        assert asked(query), title
        for name, labels in asked(query).items():
            assert name in exposed, f"{title}: no metric {name}"
            assert labels <= exposed[name], f"{title}: {name} has the labels {exposed[name]}"


async def test_every_legend_names_a_label_of_its_series(exposed: Labels) -> None:
    for target in (target for panel in PANELS for target in panel["targets"]):
        named = set(re.findall(r"{{(\w+)}}", target.get("legendFormat", "")))
        grouped = re.search(r"\bby \(([^)]*)\)", target["expr"])
        (first, *_) = asked(target["expr"])
        assert named <= (set(WORDS.findall(grouped[1])) if grouped else exposed[first]), target


async def test_every_alert_asks_for_metrics_and_labels_that_are_there(exposed: Labels) -> None:
    expressions = re.findall(r"expr: (?:>\n)?(.*?)\n +(?:for|labels):", ALERTS, re.DOTALL)
    assert len(expressions) == len(re.findall(r"- alert:", ALERTS)) == 7
    for expression in expressions:
        for name, labels in asked(expression).items():
            assert labels <= exposed.get(name, set()), f"{name}: {expression}"
            assert name in exposed, expression


def test_every_reason_that_is_named_is_one_that_the_service_gives() -> None:
    named = set(
        re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", ALERTS + "".join(panel["description"] for panel in PANELS))
    )
    assert {"QUEUE_FULL", "SESSION_LIMIT"} < named <= set(pb.Reason.keys())


def test_every_panel_asks_a_question_has_a_unit_and_says_what_to_do() -> None:
    assert len(PANELS) >= 20
    for panel in PANELS:
        assert panel["title"].endswith("?"), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert re.fullmatch(r"[^:]+: .+\.", panel["description"]), (
            f"{panel['title']} what is seen: what to do."
        )


def test_panels_have_ids_and_titles_of_their_own_and_do_not_overlap() -> None:
    everything = DASHBOARD["panels"]
    assert Counter(panel["id"] for panel in everything).most_common(1)[0][1] == 1
    assert Counter(panel["title"] for panel in everything).most_common(1)[0][1] == 1
    cells: Counter[tuple[int, int]] = Counter()
    for place in (panel["gridPos"] for panel in everything):
        assert place["x"] + place["w"] <= 24
        cells.update(
            product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )
    assert set(cells.values()) == {1}
    assert len(cells) == 24 * (1 + max(y for _, y in cells)), "a gap between the panels"


def test_everything_asks_the_provisioned_data_source() -> None:
    provisioned = (DEPLOY / "grafana" / "datasources" / "prometheus.yml").read_text()
    (uid,) = re.findall(r"^ +uid: (\w+)$", provisioned, re.MULTILINE)
    source = {"type": "prometheus", "uid": uid}
    asking = [*PANELS, *DASHBOARD["templating"]["list"], *DASHBOARD["annotations"]["list"]]
    assert all(one["datasource"] == source for one in asking)
    assert re.findall(r"url: http://(\w+):9090", provisioned) == ["prometheus"]
    assert "\n  prometheus:\n" in COMPOSE
    interval = re.compile(r"(?:timeInterval|scrape_interval): (\w+)")
    assert interval.findall(provisioned) == interval.findall((DEPLOY / "prometheus.yml").read_text())


def test_grafana_finds_what_compose_mounts() -> None:
    mounted = dict(re.findall(r"- \./deploy/grafana/?(\S*):(/etc/grafana\S*):ro", COMPOSE))
    assert set(mounted) == {"grafana.ini", "datasources", "dashboards"}
    assert all((DEPLOY / "grafana" / name).exists() for name in mounted)
    (path,) = re.findall(r"path: (\S+)", (DEPLOY / "grafana" / "dashboards" / "provider.yml").read_text())
    (home,) = re.findall(
        r"default_home_dashboard_path = (\S+)", (DEPLOY / "grafana" / "grafana.ini").read_text()
    )
    assert mounted["dashboards"] == path
    assert home == f"{path}/carousel.json"
