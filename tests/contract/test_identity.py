"""Who calls: tokens, and owners apart from each other. All through real gRPC."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2_grpc import CarouselStub
from service.tokens import hash_of, new_token
from tests.house import (
    ABSENT,
    ALICE,
    BOB,
    FORBIDDEN,
    ROOT,
    UNKNOWN,
    House,
    Signed,
    bearer,
    identities,
    refused,
    serving,
)
from tests.wire import attach, converse, steps, tokens


@pytest.fixture
async def house(repository: Path, tmp_path: Path) -> AsyncIterator[House]:
    async with serving(repository, tmp_path / "identities.toml", identities()) as house:
        yield house


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ((), "expected 'Bearer TOKEN' in the metadata, came nothing"),
        (bearer("wrong-and-secret"), "nobody has this token"),
        (bearer(ALICE.upper()), "nobody has this token"),
        (bearer(hash_of(ALICE)), "nobody has this token"),
        (bearer(""), "nobody has this token"),
        ((("authorization", f"Basic {ALICE}"),), "came something else"),
        ((("authorization", ALICE),), "came something else"),
        (bearer(ALICE) + bearer(ALICE), "came 2 of them"),
    ],
)
async def test_who_has_no_token_or_a_wrong_one_is_told_so_and_not_what_came(
    house: House, metadata: tuple[tuple[str, str], ...], words: str
) -> None:
    async with house.channel() as channel:
        stub = Signed(CarouselStub(channel), metadata)
        async with refused(*UNKNOWN) as unary:
            await stub.ListModels(pb.ListModelsRequest())
        async with refused(*UNKNOWN) as streamed:
            await stub.Stream().read()
    assert words in unary[0]
    assert streamed == unary
    assert not any(
        secret in unary[0] for _, value in metadata for secret in value.split() if secret != "Bearer"
    )


async def test_a_token_opens_every_kind_of_call(house: House) -> None:
    async with house.stub(ALICE) as alice:
        session = (await alice.Open(pb.OpenRequest(model="tiny"))).session
        await alice.Step(pb.StepRequest(session=session, first_index=0, inputs=tokens(1)))
        attached, answered = await converse(alice, attach(session), steps([0], [1], [[2]]))
    assert not attached.attached.errors
    assert list(answered.answers.lengths) == [1]
    async with house.channel() as channel:  # the scheme's name is written either way
        await CarouselStub(channel).ListModels(
            pb.ListModelsRequest(), metadata=(("authorization", f"bearer {BOB}"),)
        )


async def test_health_is_open_to_all_and_reflection_to_known_callers(house: House) -> None:
    async with house.channel() as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        async with refused(*UNKNOWN):
            [answer async for answer in reflect(iter([question]))]
        (answer,) = [answer async for answer in reflect(iter([question]), metadata=bearer(BOB))]
    names = {service.name for service in answer.list_services_response.service}
    assert "carousel.v1.Carousel" in names


async def test_the_same_id_of_two_owners_is_two_sessions(house: House) -> None:
    async with house.stub(ALICE) as alice, house.stub(BOB) as bob:
        for stub in (alice, bob):
            await stub.Open(pb.OpenRequest(model="tiny", session="diary", request_id="the same"))
        await alice.Step(pb.StepRequest(session="diary", first_index=0, length=3, inputs=tokens(1, 2, 3)))
        theirs = await bob.Step(pb.StepRequest(session="diary", first_index=0, inputs=tokens(7)))
        fresh = (await bob.Open(pb.OpenRequest(model="tiny"))).session
        alone = await bob.Step(pb.StepRequest(session=fresh, first_index=0, inputs=tokens(7)))
        assert theirs.outputs == alone.outputs
        (attached,) = await converse(alice, attach("diary"))
        assert list(attached.attached.next_indices) == [3]
        (attached,) = await converse(bob, attach("diary"))
        assert list(attached.attached.next_indices) == [1]
        assert (await alice.Describe(pb.DescribeRequest(session="diary"))).next_index == 3
        await alice.Close(pb.CloseRequest(session="diary"))
        assert (await bob.Describe(pb.DescribeRequest(session="diary"))).next_index == 1


async def test_a_foreign_session_looks_as_if_it_never_existed(house: House) -> None:
    async with house.stub(ALICE) as alice, house.stub(BOB) as bob:
        await alice.Open(pb.OpenRequest(model="tiny", session="secret"))
        await alice.Open(pb.OpenRequest(model="tiny", session="gone"))
        await alice.Close(pb.CloseRequest(session="gone"))
        said = {}
        for name in ("secret", "gone", "never"):
            found = []
            for call in (
                bob.Step(pb.StepRequest(session=name, inputs=tokens(1))),
                bob.Describe(pb.DescribeRequest(session=name)),
                bob.Close(pb.CloseRequest(session=name)),
            ):
                async with refused(*ABSENT) as message:
                    await call
                found += message
            attached, answered = await converse(bob, attach(name), steps([0], [0], [[1]]))
            for response in (attached.attached, answered.answers):
                (error,) = response.errors
                assert error.reason == pb.SESSION_NOT_FOUND
                found.append(error.message)
            said[name] = [message.replace(name, "NAME") for message in found]
    assert said["secret"] == said["gone"] == said["never"]


async def test_lists_show_the_callers_own_sessions_and_to_administrators_those_of_all(house: House) -> None:
    async with house.stub(ALICE) as alice, house.stub(BOB) as bob, house.stub(ROOT) as root:
        for name in ("a1", "a2"):
            await alice.Open(pb.OpenRequest(model="tiny", session=name))
        await bob.Open(pb.OpenRequest(model="tiny", session="a1"))

        async def listed(stub: Any, **fields: Any) -> list[tuple[str, str]]:
            response = await stub.ListSessions(pb.ListSessionsRequest(**fields))
            return [(found.owner, found.session) for found in response.sessions]

        assert await listed(alice) == [("alice", "a1"), ("alice", "a2")]
        assert await listed(bob) == [("bob", "a1")]
        assert await listed(root) == []
        assert await listed(root, all_owners=True) == [("alice", "a1"), ("alice", "a2"), ("bob", "a1")]
        async with refused(*FORBIDDEN):
            await listed(alice, all_owners=True)
        first = await root.ListSessions(pb.ListSessionsRequest(all_owners=True, page_size=1))
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT"):
            await listed(alice, page_size=1, page_token=first.next_page_token)
        for call, request in (
            (alice.LoadModel, pb.LoadModelRequest(name="tiny")),
            (alice.UnloadModel, pb.UnloadModelRequest(name="tiny", version="1")),
        ):
            async with refused(*FORBIDDEN):
                await call(request)


async def test_snapshots_and_copies_are_of_the_callers_session_whoever_else_is_at_work(house: House) -> None:
    """Rows are read between two runs, and what starts the next run may be anybody's frame."""
    async with house.stub(ALICE) as alice, house.stub(BOB) as bob:
        for stub, count in ((alice, 3), (bob, 1)):
            await stub.Open(pb.OpenRequest(model="tiny", session="diary"))
            await stub.Step(pb.StepRequest(session="diary", length=count, inputs=tokens(*range(count))))
        call = bob.Stream()
        await call.write(attach("diary"))
        await call.read()

        async def keep_stepping() -> None:
            for index in range(1, 400):
                await call.write(steps([0], [index], [[1]], [index]))
                await call.read()

        stepping = asyncio.create_task(keep_stepping())
        for _ in range(40):
            taken, forked = await asyncio.gather(
                alice.Snapshot(pb.SnapshotRequest(session="diary")),
                alice.Fork(pb.ForkRequest(session="diary", count=1)),
            )
            assert (taken.next_index, forked.next_index) == (3, 3)
        snapshot = taken.snapshot
        await stepping
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "SNAPSHOT_REFUSED"):
            await bob.Restore(pb.RestoreRequest(session="diary", snapshot=snapshot))
        async with refused(grpc.StatusCode.INVALID_ARGUMENT, "SNAPSHOT_REFUSED"):
            await bob.Open(pb.OpenRequest(model="tiny", snapshot=snapshot))
        async with refused(*ABSENT):
            await bob.Fork(pb.ForkRequest(session=forked.copies[0], count=1))
        async with house.stub(ROOT) as root:
            opened = await root.Open(pb.OpenRequest(model="tiny", snapshot=snapshot))
            assert opened.next_index == 3


async def test_a_change_of_the_file_holds_and_ends_the_streams_of_a_revoked_token(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house.stub(ALICE) as alice, house.stub(BOB) as bob:
        await alice.Open(pb.OpenRequest(model="tiny", session="a"))
        await bob.Open(pb.OpenRequest(model="tiny", session="b"))
        streams = {}
        for name, stub in {"a": alice, "b": bob}.items():
            streams[name] = stub.Stream()
            await streams[name].write(attach(name))
            await streams[name].read()
        replacement = new_token()
        house.file.write_text(identities().replace(hash_of(ALICE), hash_of(replacement)))
        async with refused(*UNKNOWN) as message:
            await streams["a"].read()
        assert "taken back" in message[0]
        async with refused(*UNKNOWN):
            await alice.Describe(pb.DescribeRequest(session="a"))
        async with house.stub(replacement) as alice_again:
            assert (await alice_again.Describe(pb.DescribeRequest(session="a"))).next_index == 0
        await streams["b"].write(steps([0], [0], [[1]]))
        assert list((await streams["b"].read()).answers.lengths) == [1]
        await streams["b"].done_writing()
        assert await streams["b"].read() is grpc.aio.EOF


async def test_tokens_that_are_being_generated_end_with_the_token_of_their_caller(house: House) -> None:
    async with house.stub(ALICE) as alice:
        await alice.Open(pb.OpenRequest(model="tiny", session="a"))
        call = alice.Generate(pb.GenerateRequest(session="a", prompt=[1], max_tokens=1 << 16))
        assert (await call.read()).tokens
        house.file.write_text(identities().replace(hash_of(ALICE), hash_of(new_token())))
        async with refused(*UNKNOWN):
            while await call.read() is not grpc.aio.EOF:
                pass
    engine = house.server.engine
    async with asyncio.timeout(20):
        while engine.queue.chunks:
            await asyncio.sleep(0.01)
    made = int(engine.table.next_index[engine.table.find("alice", "a", 0.0)])
    assert 0 < made < 1 << 16


async def test_a_revoked_stream_that_nobody_reads_lets_go_of_everything(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, metrics = house.server.engine, house.server.metrics
    async with house.stub(ALICE) as alice:
        names = [(await alice.Open(pb.OpenRequest(model="tiny"))).session for _ in range(64)]
        call = alice.Stream()
        await call.write(attach(*names))
        frame = pb.StepFrame(handles=range(64), lengths=[128] * 64, inputs=tokens(*[1] * 128 * 64))

        async def flood() -> None:
            while True:
                await call.write(pb.StreamRequest(steps=frame))

        flooding, taken = asyncio.create_task(flood()), -1
        while engine.unread_bytes != taken or not taken:
            taken = engine.unread_bytes
            await asyncio.sleep(0.2)
        house.file.write_text(identities().replace(hash_of(ALICE), hash_of(new_token())))
        async with asyncio.timeout(20):
            while engine.unread_bytes or metrics.registry.get_sample_value("carousel_streams"):
                await asyncio.sleep(0.02)
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)


async def test_a_broken_file_keeps_what_was_read_before_and_shows_in_the_metrics(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def until_stale(is_so: float) -> None:
        registry = house.server.metrics.registry
        async with asyncio.timeout(20):
            while registry.get_sample_value("carousel_identities_stale") != is_so:
                await asyncio.sleep(0.02)

    await until_stale(0)
    async with house.stub(ALICE) as alice:
        house.file.write_text(identities()[:-40])
        await until_stale(1)
        await alice.ListModels(pb.ListModelsRequest())
        house.file.write_text(identities())
        await until_stale(0)
        await alice.ListModels(pb.ListModelsRequest())
