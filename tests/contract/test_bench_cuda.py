"""`carousel bench cuda`: its line where there is no GPU, and all of its logic on the CPU provider."""

import json
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from bench.cuda import (
    Chunk,
    Speed,
    aim_line,
    chunk_table,
    copies_in,
    memory_line,
    runs_in,
    service_table,
    speed_table,
)
from bench.run import Sample
from cli import bench_cuda, bench_cuda_forms, bench_cuda_parts
from cli.bench_cuda_forms import forms_on, open_form, our_step, store_of, time_in_turn, write_model
from cli.bench_cuda_parts import Bench, parts
from cli.main import main
from service.arena_backend import ArenaBackend, power_of_two
from service.repository import ModelError

TINY = bench_cuda.Plan("cpu", (8,), (1, 2), (3, 256), (4, 50), 3, (4, 8), (1, 5), (2,), seconds=0.01)
FORMS = ["fused", "single-step", "recorded"]


class Clock:
    """Stands where steps put it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps: list[str] = []

    def perf_counter(self) -> float:
        return self.now

    def step(self, name: str, seconds: float) -> None:
        self.now += seconds
        self.steps.append(name)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this onnxruntime is for CUDA"
)
def test_without_a_gpu_it_is_one_line_and_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "cuda", "--out", str(tmp_path / "b.json")]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "carousel bench: provider cuda: this onnxruntime has no CUDAExecutionProvider; uninstall it, and install carousel[gpu]"
    ]
    assert not list(tmp_path.iterdir())


def test_everything_is_measured_told_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "b.json"
    bench_cuda.report(TINY, 2, 0.3, out)
    document, text = json.loads(out.read_text()), capsys.readouterr().out
    assert "failed" not in document
    assert document["machine"]["device"] == "cpu"
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    speeds = [Speed(**one) for one in document["speeds"]]
    assert [(one.layers, one.batch) for one in speeds] == [(1, 3), (1, 256), (2, 3), (2, 256)]
    for one in speeds:
        assert list(one.ours) == FORMS
        assert all(len(way) == 2 and min(way) > 0 for way in (*one.ours.values(), one.resident, one.copied))
        assert f"| 8 | {one.layers} | {one.batch} | {one.rate:.0f} | {one.fastest} | " in text
    assert aim_line(speeds) in text
    chunks = [Chunk(**one) for one in document["chunks"]]
    assert [(one.hidden, one.steps) for one in chunks] == [(4, 1), (4, 5), (8, 1), (8, 5)]
    assert chunk_table(chunks) in text
    assert [document[f"form {name}"] for name in FORMS] == [{"operators_on_cpu": []}] * 3
    assert document["copies a run"] == {"fused": 0, "single-step": 0}
    assert "Copies between host and device inside a run: fused 0, single-step 0." in text

    assert len(document["resident"]["time_ratios"]) == 2
    assert document["resident"]["row_bytes"] == (1 + 2 * 50 + 4) * 16 * 4
    assert document["resident"]["device_bytes"] is None
    assert "A step with 50 resident sessions takes " in text
    assert memory_line(50, 6720, None) in text
    for name in ("fused", "recorded"):
        samples = [Sample(**one) for one in document[f"service {name}"]]
        assert min(one.steps_per_second for one in samples) > 0
        assert f"The service, frames of 64 sessions, {name}: `--provider cpu --max-batch 1024`" in text
        assert service_table((2,), samples) in text


def test_a_part_that_fails_is_told_and_raised_after_all_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def good(_tell: object) -> Iterator[tuple[Any, str]]:
        yield 1, "half of it"
        yield 2, "all of it"

    def bad(_tell: object) -> Iterator[tuple[Any, str]]:
        yield 3, "a beginning"
        raise ModelError("no such form")

    monkeypatch.setattr(
        bench_cuda_parts, "parts", lambda bench: {"one": good, "two": bad, "three": bad, "four": good}
    )
    with pytest.raises(ModelError, match="no such form"):
        bench_cuda.report(TINY, 1, 0.3, tmp_path / "b.json")
    document, text = json.loads((tmp_path / "b.json").read_text()), capsys.readouterr().out
    reason = "ModelError: no such form"
    assert document.pop("machine")["device"] == "cpu"
    assert document == {"one": 2, "two": 3, "three": 3, "four": 2, "failed": {"two": reason, "three": reason}}
    told = [f"a beginning\n\n{name}: failed: {reason}" for name in ("two", "three")]
    assert text.split("\n", 1)[1] == f"\nall of it\n\n{told[0]}\n\n{told[1]}\n\nall of it\n"


def test_what_was_measured_is_in_the_file_while_the_rest_is_being_measured(tmp_path: Path) -> None:
    out, seen = tmp_path / "b.json", []

    def part(_tell: object) -> Iterator[tuple[Any, str]]:
        for found in ([1], [1, 2]):
            yield found, ""
            seen.append(json.loads(out.read_text()))

    assert bench_cuda.measure("counting", part, {"before": 0}, out) is None
    assert seen == [{"before": 0, "counting": [1]}, {"before": 0, "counting": [1, 2]}]


def test_what_a_failed_part_had_is_gone_before_the_next_one_begins(tmp_path: Path) -> None:
    had = []

    def part(_tell: object) -> Iterator[tuple[Any, str]]:
        arena = np.zeros(9)
        had.append(weakref.ref(arena))
        yield 1, ""
        raise MemoryError("no room")

    failure = bench_cuda.measure("large", part, {}, tmp_path / "b.json")
    assert isinstance(failure, MemoryError)
    assert had[0]() is None
    assert json.loads((tmp_path / "b.json").read_text())["failed"] == {"large": "MemoryError: no room"}


def test_every_form_makes_the_same_steps(tmp_path: Path) -> None:
    answers = {}
    for name in FORMS:
        opened = open_form("cpu", name, write_model(tmp_path, name, 6, 8, 2))
        step = our_step(opened, store_of("cpu", opened.contract, 3, 3), 3, 5)
        step()  # a second chunk goes on where the first has ended
        answers[name] = step().outputs[0][:, -1]
    assert np.ptp(answers["fused"]) > 0
    for name in FORMS[1:]:
        np.testing.assert_allclose(answers[name], answers["fused"], rtol=1e-5, atol=1e-6)


def test_only_the_recorded_form_records_and_only_the_batch_that_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, record = [], ArenaBackend.record

    def told(backend: ArenaBackend, batch: int) -> None:
        record(backend, batch)
        recorded.append((name, batch, set(backend._buckets)))

    monkeypatch.setattr(ArenaBackend, "record", told)
    for name in FORMS:
        opened = open_form("cpu", name, write_model(tmp_path, name, 6, 8, 1))
        our_step(opened, store_of("cpu", opened.contract, 5, 5), 5)()
    assert recorded == [("recorded", 5, {(8, 1)})]


def test_there_may_be_no_more_resident_sessions_than_few_and_fewer_than_step_at_once(tmp_path: Path) -> None:
    bench = Bench(TINY._replace(sessions=(2, 2)), 3, 0.1, tmp_path, tmp_path / "b.png", "here")
    ((found, _),) = parts(bench)["resident"](lambda _: None)
    assert len(found["time_ratios"]) == 3


def test_no_session_records_a_size_again_for_other_buffers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime would replay the first recording, into memory that is somebody else's by then."""
    recorded, record = [], ArenaBackend.record

    def told(backend: ArenaBackend, batch: int) -> None:
        record(backend, batch)
        recorded.append((backend._session, power_of_two(batch)))

    monkeypatch.setattr(ArenaBackend, "record", told)
    bench = Bench(TINY._replace(layers=(1,), batches=(3, 4)), 1, 0.1, tmp_path, tmp_path / "b.png", "here")
    for name, part in parts(bench).items():
        if not name.startswith("service"):
            assert list(part(lambda _: None))
    assert len(recorded) == 1 + 4 + 2
    assert len(set(recorded)) == len(recorded)


def test_what_cannot_be_recorded_is_no_recorded_form(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="LSTM cannot be recorded"):
        open_form("cpu", "recorded", write_model(tmp_path, "fused", 6, 8, 1))


def test_float16_is_for_cuda_alone() -> None:
    assert forms_on("cpu") == FORMS
    assert forms_on("cuda") == [*FORMS, "fp16"]


def test_a_timing_has_as_many_steps_as_fit_and_at_least_two(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(bench_cuda_forms, "time", clock)
    ways = {"short": partial(clock.step, "short", 0.125), "long": partial(clock.step, "long", 4.0)}
    assert time_in_turn(ways, 3, 1.0) == {"short": [0.125] * 3, "long": [4.0] * 3}
    turn = ["short"] * (1 + 8) + ["long"] * (1 + 2)
    assert clock.steps == ["short"] * 3 + ["long"] * 3 + turn * 3


def speed(batch: int, resident: float, **ours: float) -> Speed:
    """One timing of each way."""
    return Speed(128, 1, batch, {form: [time] for form, time in ours.items()}, [resident], [2 * resident])


def test_rates_and_ratios_are_those_of_the_medians_and_of_the_fastest_float32_form() -> None:
    ours = {"fused": [4.0, 1.0, 2.0], "recorded": [1.0, 9.0, 1.0], "fp16": [0.5, 0.5, 0.5]}
    one = Speed(128, 1, 64, ours, [1.0, 3.0, 1.5], [6.0, 4.0, 5.0])
    assert (one.fastest, one.rate, one.ratio("fused"), one.ratio_to_copied) == ("recorded", 64.0, 0.75, 5.0)
    assert speed_table([one]).splitlines() == [
        "| H | L | B | steps/s | fastest | fused, of torch resident | recorded, of torch resident | fp16, of torch resident | fastest, of torch copying as we do |",
        "|---|---|---|---|---|---|---|---|---|",
        "| 128 | 1 | 64 | 64 | recorded | 0.75 | 1.50 | 3.00 | 5.00 |",
    ]


def test_the_aim_is_for_large_batches_and_the_fastest_float32_form() -> None:
    small = speed(64, 1.0, fused=9.0)
    assert aim_line([small]) == "No batch of 256 or more was measured."
    large = [
        speed(256, 0.8, fused=1.0),
        speed(1024, 0.5, fused=1.0, fp16=0.1),
        speed(4096, 0.9, fused=9.0, recorded=1.0),
    ]
    assert aim_line([small, *large]) == (
        "2 of 3 rows with B >= 256 reach 0.8 of torch.nn.LSTM with everything resident, "
        "in the fastest form of float32; the worst is 0.50, at H=128 L=1 B=1024."
    )


def test_the_faster_form_of_a_chunk_is_told() -> None:
    table = chunk_table([Chunk(128, 1, [0.002], [0.001]), Chunk(128, 64, [0.01], [0.04])])
    assert table.splitlines()[2:] == [
        "| 128 | 1 | 2.000 | 1.000 | 0.50 | recorded |",
        "| 128 | 64 | 10.000 | 40.000 | 4.00 | fused |",
    ]


def test_what_the_device_has_less_is_told_against_the_rows() -> None:
    assert memory_line(9, 2_000_000, 3_000_000) == (
        "The rows of 9 resident sessions are 2.0 MB; the device has 3.0 MB less, 1.50 of that."
    )
    assert "was not measured" in memory_line(9, 2_000_000, None)


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
