"""`carousel bench cuda`: its line where there is no GPU, and its arithmetic on the CPU provider."""

import json
from pathlib import Path

import onnxruntime
import pytest

from bench.cuda import Speed, copies_in, runs_in, service_table, speed_table
from bench.run import Sample
from cli import bench_cuda
from cli.main import main

TINY = bench_cuda.Plan("cpu", (8,), (1, 2), (1, 3), (4, 50), active=3, clients=(1, 2))


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this onnxruntime is for CUDA"
)
def test_without_a_gpu_it_is_one_line_and_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "cuda", "--out", str(tmp_path / "b.json")]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "carousel bench: provider cuda: this onnxruntime has no CUDAExecutionProvider; install carousel[gpu]"
    ]
    assert not list(tmp_path.iterdir())


def test_everything_is_measured_told_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "b.json"
    bench_cuda.report(TINY, 2, 0.3, out)
    document, text = json.loads(out.read_text()), capsys.readouterr().out
    assert document["machine"]["device"] == "cpu"
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    speeds = [Speed(**one) for one in document["speeds"]]
    assert [(one.layers, one.batch) for one in speeds] == [(1, 1), (1, 3), (2, 1), (2, 3)]
    for one in speeds:
        assert all(len(way) == 2 and min(way) > 0 for way in (one.ours, one.resident, one.copied))
        assert f"| 8 | {one.layers} | {one.batch} | {one.rate:.0f} | {one.ratio:.2f} |" in text
    assert document["copies_a_run"] == 0
    assert "Copies between host and device inside a run: 0." in text
    assert len(document["resident"]["time_ratios"]) == 2
    assert "A step with 50 resident sessions takes " in text
    assert len(document["service"]) == 2
    assert min(one["steps_per_second"] for one in document["service"]) > 0


def test_rates_and_ratios_are_those_of_the_medians() -> None:
    one = Speed(128, 1, 64, [4.0, 1.0, 2.0], [1.0, 3.0, 1.5], [6.0, 4.0, 5.0])
    assert (one.rate, one.ratio, one.ratio_to_copied) == (32.0, 0.75, 2.5)
    assert speed_table([one]).splitlines()[2:] == ["| 128 | 1 | 64 | 32 | 0.75 | 2.50 |"]


def test_a_copy_inside_a_run_is_counted(tmp_path: Path) -> None:
    """As ONNX Runtime writes them for a node that is not on the device of its neighbours."""
    node = {"cat": "Node", "name": "x_kernel_time"}
    events = [
        {"cat": "Session", "name": "model_run"},
        node | {"args": {"op_name": "MemcpyToHost", "provider": "CUDAExecutionProvider"}},
        node | {"args": {"op_name": "LSTM", "provider": "CPUExecutionProvider"}},
        node | {"args": {"op_name": "MemcpyFromHost", "provider": "CUDAExecutionProvider"}},
        {"cat": "Session", "name": "model_run"},
    ]
    (tmp_path / "p.json").write_text(json.dumps(events))
    assert (copies_in(tmp_path / "p.json"), runs_in(tmp_path / "p.json")) == (2, 2)


def test_what_more_clients_bring_is_told_against_one() -> None:
    one, two = (Sample("carousel", rate, 1.0, 2.5, 0.5, 10.0, [0.1]) for rate in (1000.0, 1500.0))
    assert service_table((1, 2), (one, two)).splitlines()[2:] == [
        "| 1 | 1000 | 1.00 | 2.5 | 50% |",
        "| 2 | 1500 | 1.50 | 2.5 | 50% |",
    ]
