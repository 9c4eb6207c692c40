"""A Prometheus, as tests ask it."""

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import pytest

from tests.dashboard import queries


@dataclass
class Prometheus:
    """The HTTP API of one that runs somewhere."""

    url: str

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer. A query that Prometheus cannot take is a failure, not something to wait for."""
        try:
            with urllib.request.urlopen(
                f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=5
            ) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                if error.code in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY):
                    pytest.fail(f"{parameters}: {error.read().decode()}")
                raise

    def samples(self, query: str) -> list[dict[str, Any]]:
        """`{"metric": labels, "value": [time, text]}` for each series, as of now."""
        found: list[dict[str, Any]] = self.get("query", query=query)["result"]
        return found

    def silent_panels(self, window: str) -> list[str]:
        """Titles of the panels of the dashboard with a query that has no number to show."""
        return [
            title
            for title, query in queries(window)
            if all(sample["value"][1] == "NaN" for sample in self.samples(query))
        ]

    def rules(self) -> list[dict[str, Any]]:
        """The alert rules that it has loaded."""
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]
