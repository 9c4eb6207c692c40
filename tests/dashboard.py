"""The Grafana dashboard as tests read it: its panels, and what they ask Prometheus."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboards" / "carousel.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries(window: str = "1m") -> Iterator[tuple[str, str]]:
    """(title of its panel, PromQL) for every query, with Grafana's variables filled in as for "All"."""
    filled = {"$__rate_interval": window, "$instance": ".*", "$model": ".*"}
    for panel in PANELS:
        for target in panel["targets"]:
            query = target["expr"]
            for variable, value in filled.items():
                query = query.replace(variable, value)
            yield panel["title"], query
