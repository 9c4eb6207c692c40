"""More open sessions than anybody steps: they cost memory by the byte, and time not at all."""

import json
from pathlib import Path

import pytest

from bench.million import measure
from export.bare import bare_lstm

BEYOND = 512
"""Bytes of a session besides its state and its kept answers."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    file = folder / "bench" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(bare_lstm(64, 64, 1).SerializeToString())
    return folder


def test_sessions_that_wait_are_opened_stepped_and_measured(models: Path) -> None:
    told = measure(models, 3000, seconds=0.3)
    assert told["bytes_a_session"] > 0
    assert told["many"]["steps_per_second"] > 0
    assert told["ratio"] == pytest.approx(told["many"]["step_s"] / told["few"]["step_s"])


@pytest.mark.load
@pytest.mark.timeout(1800)
def test_a_million_sessions_fit_into_memory(models: Path) -> None:
    told = measure(models, 1_000_000)
    print(json.dumps(told, indent=1))  # noqa: T201 - for whoever reads what `make soak` says
    assert told["bytes_beyond"] <= BEYOND
