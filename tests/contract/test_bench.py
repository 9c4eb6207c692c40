"""The benchmark measures what it says: every step that is counted was answered by a real server."""

import json
from pathlib import Path

import pytest

from bench.plot import draw
from bench.report import table, write_json
from bench.rows import columnar_frames, one_session
from bench.run import Load, echo, measure
from export.bare import bare_lstm

SECONDS = 0.3


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    file = folder / "bench" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(bare_lstm(64, 16, 1).SerializeToString())
    return folder


def test_a_row_is_measured_told_drawn_and_written(models: Path, tmp_path: Path) -> None:
    ratios = [*columnar_frames(models, 1, SECONDS), *one_session(models, 1, SECONDS)]
    for ratio in ratios:
        ours, base = ratio.samples[0]["ours"], ratio.samples[0]["base"]
        assert ours["steps_per_second"] > 0
        assert ours["p50_ms"] <= ours["p99_ms"]
        assert 0 < base["server_cpu"] < 2
        assert f"| {ratio.row} | {ratio.figure} | {ratio.against} | {ratio.aim} |" in table(ratios)
    frames = ratios[0].samples[0]
    assert ratios[0].median == frames["ours"]["steps_per_second"] / frames["base"]["steps_per_second"]
    write_json(ratios, tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text())["ratios"][0]["runs"] == ratios[0].runs
    draw(ratios, "a machine", tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")


def test_a_paced_load_comes_no_faster_than_its_rate() -> None:
    load = Load(clients=1, streams=4, sessions=1, depth=1, seconds=1.0, input_size=8, rate=200)
    with echo("bytes") as target:
        assert 0 < measure(target, load).steps_per_second <= 220
