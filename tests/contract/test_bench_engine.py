"""`carousel bench engine`: its rows come out, and none of them counts an answer that is wrong."""

import asyncio
import json
from pathlib import Path

import grpc
import numpy as np
import pytest

from bench.many import Sessions
from bench.padded import Padding, Waiting, open_model
from bench.run import service
from bench.sequences import LONGEST, SHORTEST, Plan, Sent, check, sequences
from carousel.errors import CarouselError
from carousel.wire.carousel_pb2 import CloseRequest
from carousel.wire.carousel_pb2_grpc import CarouselStub
from cli import bench_service
from cli.main import main
from export.bare import bare_lstm

SESSIONS = 30


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    file = folder / "bench" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(bare_lstm(8, 4, 1).SerializeToString())
    return folder


def plan(rate: float | None) -> Plan:
    return Plan(port=0, kind="padded", streams=1, sessions=1, seconds=1, model="", seed=3, rate=rate)


def test_every_row_is_measured_told_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # With its own models a busy machine may take longer than this test measures for the first sequences.
    units, write_model = 16, bench_service._write_model
    monkeypatch.setattr(
        bench_service,
        "_write_model",
        lambda folder, **sizes: write_model(folder, **sizes | {"hidden_size": units}),
    )
    out = tmp_path / "b.json"
    size = ["--runs", "1", "--seconds", "1", "--sessions", str(SESSIONS)]
    assert main(["bench", "engine", *size, "--out", str(out)]) == 0
    told, ratios = capsys.readouterr().out, json.loads(out.read_text())["ratios"]
    assert [f"| {ratio['row']} | {ratio['figure']} |" in told for ratio in ratios] == [True] * 6
    long, rate, p90, _, _, restart = (ratio["samples"][0] for ratio in ratios)
    assert long["long"]["steps_per_second"] % 1000 == 0 < long["long"]["steps_per_second"]
    assert ratios[0]["median"] == long["ours"]["p99_ms"] / long["base"]["p99_ms"]
    assert ratios[1]["median"] == rate["ours"]["steps_per_second"] / rate["base"]["steps_per_second"]
    assert ratios[2]["median"] == p90["ours"]["p90_ms"] / p90["base"]["p90_ms"]
    assert all(side[of]["checked"] > 0 for side in (rate, p90) for of in ("ours", "base"))
    assert restart["ours"]["file_bytes"] > SESSIONS * 4 * (2 * units + units)
    assert out.with_suffix(".png").exists()


def test_lengths_are_uniform_and_arrivals_random_and_both_come_again_with_their_seed() -> None:
    made = [one for one, _ in zip(sequences(plan(rate=50)), range(4000), strict=False)]
    again = [one for one, _ in zip(sequences(plan(rate=50)), range(4000), strict=False)]
    gaps, _, steps = (np.array(column) for column in zip(*made, strict=True))
    assert made == again
    assert (steps.min(), steps.max()) == (SHORTEST, LONGEST)
    assert abs(steps.mean() - (SHORTEST + LONGEST) / 2) < 10
    assert abs(gaps.mean() * 50 - 1) < 0.06
    assert abs(gaps.std() * 50 - 1) < 0.1  # as long as the mean: arrivals know nothing of each other
    assert next(sequences(plan(rate=None)))[0] == 0


async def test_the_baseline_runs_what_waits_and_pads_it_without_changing_it(models: Path) -> None:
    file = models / "bench" / "1" / "model.onnx"
    pool = np.random.default_rng(0).standard_normal((100, 8)).astype("<f4")
    padding, sizes = Padding(file, most=3), list[int]()
    run = padding._run

    def counted(batch: list[Waiting]) -> list[bytes]:
        sizes.append(len(batch))
        return run(batch)

    padding._run = counted  # type: ignore[method-assign, assignment]
    sent = [Sent(0, start=0, steps=steps) for steps in (40, 7, 100, 1, 13)]
    blobs = await asyncio.gather(*(padding.answer(one.steps, pool[: one.steps].tobytes()) for one in sent))
    assert sizes == [3, 2]
    assert all(check(open_model(file), pool, one, blob) for one, blob in zip(sent, blobs, strict=True))


def test_an_answer_that_is_off_is_not_counted(models: Path) -> None:
    pool = np.ones((5, 8), "<f4")
    model = open_model(models / "bench" / "1" / "model.onnx")
    for wrong in (0.5, np.nan):
        with pytest.raises(CarouselError, match="the answer to a sequence of 5 steps is off by"):
            check(model, pool, Sent(0, 0, 5), np.full((5, 4), wrong, "<f4").tobytes())


async def test_a_session_that_is_lost_or_another_is_noticed(models: Path) -> None:
    sessions = Sessions(models, 3)
    with service(models) as target:
        await sessions.open_and_step(target.port)
        await sessions.check(target.port)
        sessions._first[1, 2] += 1
        with pytest.raises(CarouselError, match="an answer that was kept is not the one that was given"):
            await sessions.check(target.port)
        sessions._first[1, 2] -= 1
        async with grpc.aio.insecure_channel(f"127.0.0.1:{target.port}") as channel:
            await CarouselStub(channel).Close(CloseRequest(session=sessions._ids[2]))  # type: ignore[no-untyped-call]
        with pytest.raises(CarouselError, match="closed"):
            await sessions.check(target.port)
