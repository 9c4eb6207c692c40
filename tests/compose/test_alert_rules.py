"""Prometheus' own tool on its configuration and on the alert rules, wherever it is installed."""

import re
import shutil
import subprocess

import pytest

from tests.dashboard import DEPLOY

NAMES = re.findall(r"- alert: (\w+)", (DEPLOY / "alerts.yml").read_text())
TESTS = (DEPLOY / "alerts.test.yml").read_text()


def promtool(*arguments: str) -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed; it comes with Prometheus")
    done = subprocess.run([found, *arguments], cwd=DEPLOY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_takes_the_configuration_with_all_its_rules() -> None:
    assert f"SUCCESS: {len(NAMES)} rules found" in promtool("check", "config", "prometheus.yml")


def test_alerts_fire_when_they_should_and_are_silent_otherwise() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts.test.yml")


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_is_tested_both_ways(name: str) -> None:
    assert re.search(rf"alertname: {name}, eval_time: \w+, exp_alerts: \[\]", TESTS)
    assert re.search(rf"alertname: {name}\n +eval_time: \w+\n +exp_alerts:\n +- exp_labels", TESTS)
