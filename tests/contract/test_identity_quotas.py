"""How much an owner may use. All through real gRPC."""

import asyncio
from pathlib import Path
from typing import Any

import grpc

from carousel.wire import carousel_pb2 as pb
from tests.house import (
    ALICE,
    BOB,
    QUOTA,
    identities,
    refused,
    serving,
)
from tests.wire import attach, steps, tokens


async def test_an_owner_opens_as_many_sessions_as_its_quota_and_others_are_not_concerned(
    repository: Path, tmp_path: Path
) -> None:
    async with (
        serving(repository, tmp_path / "i.toml", identities(alice="sessions = 2")) as house,
        house.stub(ALICE) as alice,
        house.stub(BOB) as bob,
    ):
        for name in "ab":
            await alice.Open(pb.OpenRequest(model="tiny", session=name, request_id=name))
            await bob.Open(pb.OpenRequest(model="tiny"))
        async with refused(*QUOTA) as message:
            await alice.Open(pb.OpenRequest(model="tiny"))
        assert message == ["sessions: your quota is 2, you have 2 and ask for 1"]
        await bob.Open(pb.OpenRequest(model="tiny"))
        repeated = await alice.Open(pb.OpenRequest(model="tiny", session="a", request_id="a"))
        assert repeated.session == "a", "a call that was answered before opens nothing"
        await alice.Close(pb.CloseRequest(session="a"))
        async with refused(*QUOTA):
            await alice.Fork(pb.ForkRequest(session="b", count=2))
        await alice.Fork(pb.ForkRequest(session="b", count=1))
        taken = await alice.Snapshot(pb.SnapshotRequest(session="b"))
        async with refused(*QUOTA):
            await alice.Open(pb.OpenRequest(model="tiny", snapshot=taken.snapshot))
        await alice.Restore(pb.RestoreRequest(session="b", snapshot=taken.snapshot))  # opens no further one


async def test_steps_beyond_the_rate_are_refused_in_the_frame_and_the_stream_goes_on(
    repository: Path, tmp_path: Path
) -> None:
    async with (
        serving(repository, tmp_path / "i.toml", identities(alice="steps_per_s = 2")) as house,
        house.stub(ALICE) as alice,
        house.stub(BOB) as bob,
    ):
        for name in "ab":
            await alice.Open(pb.OpenRequest(model="tiny", session=name))
        call = alice.Stream()
        await call.write(attach("a", "b"))
        await call.read()
        # More than a second's worth takes a full bucket, and leaves a minute's debt.
        await call.write(steps([0, 1], [0, 0], [[1] * 60, [2] * 60]))
        assert sorted(await _outcomes(call, 2)) == [(0, 0, ""), (1, 0, "")]
        await call.write(steps([0, 1], [60, 60], [[1], [2]]))
        assert sorted(await _outcomes(call, 2)) == [(0, 60, "QUOTA_EXCEEDED"), (1, 60, "QUOTA_EXCEEDED")]
        async with refused(*QUOTA) as message:
            await alice.Step(pb.StepRequest(session="a", first_index=60, inputs=tokens(1)))
        assert message[0].startswith("steps: your quota is 2 a second; try again in ")
        count = {"reason": "QUOTA_EXCEEDED"}
        assert house.server.metrics.registry.get_sample_value("carousel_refused_total", count) == 3
        await bob.Open(pb.OpenRequest(model="tiny", session="b"))
        await bob.Step(pb.StepRequest(session="b", length=64, inputs=tokens(*[1] * 64)))
        house.file.write_text(identities(alice="steps_per_s = 1000000"))
        outcome = (0, 60, "QUOTA_EXCEEDED")
        async with asyncio.timeout(20):
            while outcome[2]:  # the same chunk goes through when it may, on the same stream
                await asyncio.sleep(0.02)
                await call.write(steps([0], [60], [[1]]))
                (outcome,) = await _outcomes(call, 1)
        assert outcome == (0, 60, "")
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


async def test_a_chunk_of_a_call_is_paid_for_by_its_steps(repository: Path, tmp_path: Path) -> None:
    async with (
        serving(repository, tmp_path / "i.toml", identities(alice="steps_per_s = 2")) as house,
        house.stub(ALICE) as alice,
    ):
        await alice.Open(pb.OpenRequest(model="tiny", session="a"))
        await alice.Step(pb.StepRequest(session="a", length=60, inputs=tokens(*[1] * 60)))
        async with refused(*QUOTA):
            await alice.Step(pb.StepRequest(session="a", inputs=tokens(1)))
        assert (await alice.Describe(pb.DescribeRequest(session="a"))).next_index == 60


async def _outcomes(call: Any, chunks: int) -> list[tuple[int, int, str]]:
    """Handle, first index and reason of so many chunks."""
    found: list[tuple[int, int, str]] = []
    while len(found) < chunks:
        frame = (await call.read()).answers
        errors = {error.position: pb.Reason.Name(error.reason) for error in frame.errors}
        columns = enumerate(zip(frame.handles, frame.first_indices, strict=True))
        found += [(handle, first, errors.get(k, "")) for k, (handle, first) in columns]
    return found


async def test_chunks_under_way_are_counted_over_all_streams_and_calls_of_an_owner(
    repository: Path, tmp_path: Path
) -> None:
    async with (
        serving(
            repository,
            tmp_path / "i.toml",
            identities(alice="queued_chunks = 3"),
            queue_delay_s=10,  # everything waits
        ) as house,
        house.stub(ALICE) as alice,
        house.stub(BOB) as bob,
    ):
        for stub in (alice, bob):
            for name in "abcde":
                await stub.Open(pb.OpenRequest(model="tiny", session=name))
        queue = house.server.engine.queue
        first, second = alice.Stream(), alice.Stream()
        for call in (first, second):
            await call.write(attach(*"abcde"))
            await call.read()
        await first.write(steps([0, 1], [0, 0], [[1], [1]]))
        step = asyncio.ensure_future(alice.Step(pb.StepRequest(session="c", inputs=tokens(1))))
        async with asyncio.timeout(20):
            while queue.chunks < 3:
                await asyncio.sleep(0.01)
        await second.write(steps([3, 4], [0, 0], [[1], [1]]))
        assert await _outcomes(second, 2) == [(3, 0, "QUOTA_EXCEEDED"), (4, 0, "QUOTA_EXCEEDED")]
        async with refused(*QUOTA) as message:
            await alice.Step(pb.StepRequest(session="d", inputs=tokens(1)))
        assert message == ["queued chunks: your quota is 3, this would make 4; wait for answers"]
        others = bob.Stream()
        await others.write(attach(*"abcde"))
        await others.write(steps([0, 1, 2, 3, 4], [0] * 5, [[1]] * 5))
        async with asyncio.timeout(20):
            while queue.chunks < 8:
                await asyncio.sleep(0.01)
        first.cancel()  # whoever leaves gives back what was counted
        step.cancel()
        async with asyncio.timeout(20):
            while queue.chunks > 5:
                await asyncio.sleep(0.01)
        await second.write(steps([2, 3, 4], [0] * 3, [[1]] * 3))
        async with asyncio.timeout(20):
            while queue.chunks < 8:
                await asyncio.sleep(0.01)
        others.cancel()
        second.cancel()
