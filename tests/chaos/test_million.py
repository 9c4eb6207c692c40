"""More open sessions than anybody steps: they cost memory by the byte, and time not at all."""

import json
from pathlib import Path

import pytest

from cli.main import main


def measured(folder: Path, sessions: int, seconds: float, runs: int) -> list[dict]:
    out = folder / "million.json"
    size = ["--sessions", str(sessions), "--seconds", str(seconds), "--runs", str(runs)]
    assert main(["bench", "million", *size, "--out", str(out)]) == 0
    return json.loads(out.read_text())["ratios"]


def test_sessions_that_wait_are_opened_stepped_and_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step, p99, memory = measured(tmp_path, 3000, seconds=0.3, runs=1)
    (sample,) = step["samples"]
    assert step["median"] == sample["ours"]["p50_ms"] / sample["base"]["p50_ms"]
    assert p99["median"] == sample["ours"]["p99_ms"] / sample["base"]["p99_ms"]
    assert sample["ours"]["steps_per_second"] > 0
    assert memory["samples"][0]["ours"]["bytes_a_session"] - memory["median"] == 4 * (128 + 64)
    assert "| 3000 sessions open, 64 active | time a step |" in capsys.readouterr().out


@pytest.mark.load
@pytest.mark.timeout(1800)
def test_a_million_sessions_fit_into_memory(tmp_path: Path) -> None:
    *_, memory = measured(tmp_path, 1_000_000, seconds=3, runs=3)
    assert memory["median"] <= 512
