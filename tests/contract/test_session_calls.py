"""Forks, snapshots, restores, touching and listing over a real server."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2_grpc import CarouselStub
from service import drain_file
from service.server import Server, start_server
from service.settings import Settings
from service.tokens import hash_of, new_token
from tests.models import tiny_characters
from tests.wire import V, attach, errors, open_session, steps, tokens


async def step(stub: Any, session: str, first: int, *values: int) -> bytes:
    """The answer to the steps of one chunk."""
    request = pb.StepRequest(
        session=session, first_index=first, length=len(values), acknowledged=first, inputs=tokens(*values)
    )
    return (await stub.Step(request)).outputs[0].data


async def stepped(stub: Any, *values: int, **fields: Any) -> str:
    session = await open_session(stub, **fields)
    await step(stub, session, 0, *values)
    return session


async def refused(call: Any) -> tuple[str, str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    reason = dict(caught.value.trailing_metadata())["carousel-reason"]
    return caught.value.code().name, reason, caught.value.details()


@asynccontextmanager
async def another(repository: Path, **settings: Any) -> AsyncIterator[tuple[Server, Any]]:
    """A server with other settings."""
    ports = {"models": repository, "grpc_port": 0, "http_port": 0}
    server = await start_server(Settings.load(ports | settings))
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}", options) as channel:
        yield server, CarouselStub(channel)
        await server.stop()


# -- forks --------------------------------------------------------------------------------------------------------


async def test_copies_answer_as_their_session_would_and_nobody_disturbs_another(stub) -> None:
    source = await stepped(stub, 1, 2, 3, time_to_live_s=60)
    made = await stub.Fork(pb.ForkRequest(session=source, count=2))
    named = await stub.Fork(pb.ForkRequest(session=source, copies=["left", "right"]))
    assert (made.next_index, list(named.copies)) == (3, ["left", "right"])
    twin = await stepped(stub, 1, 2, 3)
    expected = [await step(stub, twin, 3, 4, 5)]
    answers = [await step(stub, one, 3, 4, 5) for one in (*made.copies, "left", source)]
    assert answers == expected * 4
    described = await stub.Describe(pb.DescribeRequest(session="right"))
    assert (described.next_index, described.kept_answers, described.owner) == (3, 0, "anonymous")
    assert 55 < described.expires_in_s <= 60


async def test_a_fork_that_is_repeated_at_the_same_time_and_later_is_made_once(stub, server) -> None:
    source = await stepped(stub, 1)
    request = pb.ForkRequest(session=source, count=3, request_id="fork")
    many = await asyncio.gather(*(stub.Fork(request) for _ in range(8)))
    await stub.Close(pb.CloseRequest(session=source))
    assert [one == many[0] for one in (*many, await stub.Fork(request))] == [True] * 9
    assert len(server.engine.table) == 3
    other = pb.ForkRequest(session=source, count=4, request_id="fork")
    assert (await refused(stub.Fork(other)))[1] == "CONTENT_DIFFERS"


async def test_a_fork_whose_caller_hangs_up_is_made_once(stub, server) -> None:
    source = await stepped(stub, 1)
    request = pb.ForkRequest(session=source, count=1024, request_id="fork")
    call = stub.Fork(request)
    await asyncio.sleep(0.001)
    call.cancel()
    made = await stub.Fork(request)
    assert len(set(made.copies)) == 1024
    assert len(server.engine.table) == 1025


FORKS = {
    "none": ({}, "INVALID_INPUT", "copies: expected 1 to 1024, got 0"),
    "too many": ({"count": 1025}, "INVALID_INPUT", "copies: expected 1 to 1024, got 1025"),
    "an empty id": ({"copies": ["a", ""]}, "INVALID_INPUT", "copies: expected ids, got an empty one"),
    "an id twice": (
        {"copies": ["a", "a"]},
        "INVALID_INPUT",
        "session ids: expected each once, got 'a' twice",
    ),
    "an id that is taken": ({"copies": ["a", "me"]}, "SESSION_EXISTS", "session 'me' exists"),
    "nobody": ({"session": "nobody", "count": 1}, "SESSION_NOT_FOUND", "session 'nobody' does not exist"),
    "a long id": ({"copies": ["x" * 129]}, "INVALID_INPUT", "session id: expected at most 128"),
}


@pytest.mark.parametrize("what", FORKS)
async def test_a_fork_that_cannot_be_made_leaves_no_copy(stub, server, what: str) -> None:
    fields, reason, message = FORKS[what]
    await stepped(stub, 1, session="me")
    _, got, text = await refused(stub.Fork(pb.ForkRequest(**({"session": "me"} | fields))))
    assert got == reason
    assert text.startswith(message)
    assert len(server.engine.table) == server.engine.served[0].rows.used == 1


async def test_there_are_no_more_copies_than_the_server_takes_sessions(repository: Path) -> None:
    async with another(repository, max_sessions=4) as (server, stub):
        source = await stepped(stub, 1)
        assert (await refused(stub.Fork(pb.ForkRequest(session=source, count=4))))[1] == "SESSION_LIMIT"
        assert len((await stub.Fork(pb.ForkRequest(session=source, count=3))).copies) == 3
        assert len(server.engine.table) == 4


async def test_sessions_whose_states_are_on_disk_are_copied_and_kept(
    repository: Path, tmp_path: Path
) -> None:
    async with another(repository, max_sessions=200, resident_sessions=4, state_dir=tmp_path) as (_, stub):
        sources = [await stepped(stub, k % V) for k in range(30)]
        for k, source in enumerate(sources):
            (one,) = (await stub.Fork(pb.ForkRequest(session=source, count=1))).copies
            kept = (await stub.Snapshot(pb.SnapshotRequest(session=source))).snapshot
            back = await stub.Open(pb.OpenRequest(model="tiny", snapshot=kept))
            assert await step(stub, one, 1, 5) == await step(stub, back.session, 1, 5)
            if k % 10 == 0:
                assert await step(stub, one, 2, 6) == await step(stub, await stepped(stub, k, 5), 2, 6)


# -- snapshots ----------------------------------------------------------------------------------------------------


async def test_a_snapshot_opens_sessions_that_go_on_bit_for_bit(stub) -> None:
    source = await stepped(stub, 1, 2, 3)
    taken = await stub.Snapshot(pb.SnapshotRequest(session=source))
    expected = await step(stub, source, 3, 4, 5)
    opened = await stub.Open(pb.OpenRequest(model="tiny", snapshot=taken.snapshot, session="back"))
    assert (opened.session, opened.next_index, taken.next_index) == ("back", 3, 3)
    assert await step(stub, "back", 3, 4, 5) == expected


async def test_a_snapshot_of_a_session_without_steps_is_its_initial_state(stub) -> None:
    taken = await stub.Snapshot(pb.SnapshotRequest(session=await open_session(stub)))
    opened = await stub.Open(pb.OpenRequest(model="tiny", snapshot=taken.snapshot))
    assert opened.next_index == 0
    assert await step(stub, opened.session, 0, 7) == await step(stub, await open_session(stub), 0, 7)


async def test_snapshots_taken_while_a_session_steps_fit_their_index(stub) -> None:
    session, values = await open_session(stub), [k % V for k in range(60)]
    taken: list[pb.SnapshotResponse] = []

    async def take() -> None:
        while not taken or taken[-1].next_index < len(values):
            taken.append(await stub.Snapshot(pb.SnapshotRequest(session=session)))

    taking = asyncio.ensure_future(take())
    answers = [await step(stub, session, k, value) for k, value in enumerate(values)]
    await taking
    for one in {one.next_index: one for one in taken[:-1]}.values():
        opened = await stub.Open(pb.OpenRequest(model="tiny", snapshot=one.snapshot))
        if (at := one.next_index) < len(values):
            assert await step(stub, opened.session, at, values[at]) == answers[at]


async def test_only_the_same_lineage_goes_on_with_a_snapshot(tmp_path: Path) -> None:
    for version, lineage in (("one", "a" * 32), ("two", "b" * 32)):
        tiny_characters(tmp_path, name=version, lineage=lineage)
    async with another(tmp_path) as (_, stub):
        opened = await stub.Open(pb.OpenRequest(model="one", session="one"))
        taken = await stub.Snapshot(pb.SnapshotRequest(session=opened.session))
        code, reason, message = await refused(stub.Open(pb.OpenRequest(model="two", snapshot=taken.snapshot)))
        assert (code, reason) == ("FAILED_PRECONDITION", "MODEL_DIFFERS")
        assert "came one of model 'one'" in message
        await stub.Open(pb.OpenRequest(model="two", session="two"))
        request = pb.RestoreRequest(session="two", snapshot=taken.snapshot)
        assert (await refused(stub.Restore(request)))[1] == "MODEL_DIFFERS"


async def test_damaged_and_huge_snapshots_are_refused(stub) -> None:
    session = await stepped(stub, 1)
    taken = (await stub.Snapshot(pb.SnapshotRequest(session=session))).snapshot
    for wrong in (b"x", taken[:-1], taken[:-40] + b"x" + taken[-39:], bytes(10 << 20)):
        for call in (
            stub.Open(pb.OpenRequest(model="tiny", snapshot=wrong)),
            stub.Restore(pb.RestoreRequest(session=session, snapshot=wrong)),
        ):
            assert (await refused(call))[:2] == ("INVALID_ARGUMENT", "SNAPSHOT_REFUSED")
    await step(stub, session, 1, 2)


async def test_only_administrators_restore_what_is_another_owners_or_another_servers(
    repository: Path, tmp_path: Path
) -> None:
    identities, keys = tmp_path / "identities.toml", [tmp_path / "key", tmp_path / "other"]
    secrets = {name: new_token() for name in ("alice", "bob", "root")}
    tables = [f'[{name}]\ntokens = ["{hash_of(token)}"]\n' for name, token in secrets.items()]
    identities.write_text("".join(tables) + "admin = true\n")
    for letter, key in zip(b"ko", keys, strict=True):
        key.write_bytes(bytes([letter]) * 32)
    snapshots = []
    for key in keys:
        async with another(repository, snapshot_key_file=key, identities=identities) as (_, stub):
            alice = Signed(stub, secrets["alice"])
            taken = await alice.Snapshot(pb.SnapshotRequest(session=await stepped(alice, 1)))
            snapshots.append(taken.snapshot)
    async with another(repository, snapshot_key_file=keys[0], identities=identities) as (_, stub):
        for name, allowed in {"alice": [True, False], "bob": [False] * 2, "root": [True] * 2}.items():
            signed = Signed(stub, secrets[name])
            for snapshot, fine in zip(snapshots, allowed, strict=True):
                opening = signed.Open(pb.OpenRequest(model="tiny", snapshot=snapshot))
                if fine:
                    assert (await opening).next_index == 1
                else:
                    assert "only administrators restore others" in (await refused(opening))[2]
        everybody = pb.ListSessionsRequest(all_owners=True)
        listed = (await Signed(stub, secrets["root"]).ListSessions(everybody)).sessions
        assert [one.owner for one in listed] == ["alice", "root", "root"]
        mine = await Signed(stub, secrets["alice"]).ListSessions(pb.ListSessionsRequest())
        assert [one.owner for one in mine.sessions] == ["alice"]
        got = await refused(Signed(stub, secrets["alice"]).ListSessions(everybody))
        assert got[:2] == ("PERMISSION_DENIED", "NOT_ALLOWED")


class Signed:
    """A stub whose calls carry a token."""

    def __init__(self, stub: Any, token: str) -> None:
        self._stub, self._token = stub, token

    def __getattr__(self, method: str) -> Any:
        return partial(getattr(self._stub, method), metadata=(("authorization", f"Bearer {self._token}"),))


# -- restores -----------------------------------------------------------------------------------------------------


async def test_a_restored_session_goes_on_from_its_snapshot(stub) -> None:
    session = await stepped(stub, 1, 2, 3)
    taken = await stub.Snapshot(pb.SnapshotRequest(session=session))
    expected = await step(stub, session, 3, 4)
    await step(stub, session, 4, 5, 6)
    request = pb.RestoreRequest(session=session, snapshot=taken.snapshot, request_id="r")
    first, second = await asyncio.gather(stub.Restore(request), stub.Restore(request))
    assert first == second == pb.RestoreResponse(next_index=3)
    assert await step(stub, session, 3, 4) == expected
    assert await stub.Restore(request) == first
    assert (await stub.Describe(pb.DescribeRequest(session=session))).next_index == 4


async def test_a_stream_attached_before_a_restore_is_told_to_attach_again(stub) -> None:
    session = await stepped(stub, 1)
    taken = await stub.Snapshot(pb.SnapshotRequest(session=session))
    call = stub.Stream()
    await call.write(attach(session))
    assert (await call.read()).attached.next_indices == [1]
    await stub.Restore(pb.RestoreRequest(session=session, snapshot=taken.snapshot))
    await call.write(steps([0], [1], [[2]]))
    (error,) = errors([await call.read()]).values()
    assert (error.reason, "attach again" in error.message) == (pb.Reason.SESSION_CLOSED, True)
    await call.write(attach(session))
    assert (await call.read()).attached.next_indices == [1]
    await call.write(steps([1], [1], [[2]]))
    assert (await call.read()).answers.lengths == [1]
    await call.done_writing()


async def test_steps_that_wait_when_their_session_is_restored_are_refused(stub, server) -> None:
    session = await stepped(stub, 1)
    taken = await stub.Snapshot(pb.SnapshotRequest(session=session))
    gate = threading.Event()
    server.engine.errand(lambda: gate.wait, lambda _: None)  # runs wait for it
    requests = [
        pb.StepRequest(session=session, first_index=first, length=length, inputs=tokens(*[1] * length))
        for first, length in ((1, 4000), (4001, 1))
    ]
    waiting = [asyncio.ensure_future(stub.Step(request)) for request in requests]
    while server.engine.queue.chunks < 2:
        await asyncio.sleep(0.001)
    restoring = asyncio.ensure_future(
        stub.Restore(pb.RestoreRequest(session=session, snapshot=taken.snapshot))
    )
    while not server.engine.waiting_errands:
        await asyncio.sleep(0.001)
    gate.set()
    await restoring
    for one in waiting:
        assert (await refused(one))[1] == "SESSION_CLOSED"
    assert await step(stub, session, 1, 2) == await step(stub, await stepped(stub, 1), 1, 2)


# -- touching and listing -----------------------------------------------------------------------------------------


async def test_touching_puts_an_expiry_off(stub, server) -> None:
    session = await open_session(stub, time_to_live_s=100)
    server.engine.table.used_us[:1] -= 90_000_000
    before = await stub.Describe(pb.DescribeRequest(session=session))
    assert 5 < before.expires_in_s < 10
    assert (await stub.Touch(pb.TouchRequest(session=session))).expires_in_s == 100
    assert (await stub.Describe(pb.DescribeRequest(session=session))).expires_in_s > 95
    assert (await refused(stub.Touch(pb.TouchRequest(session="nobody"))))[1] == "SESSION_NOT_FOUND"


async def test_sessions_are_listed_page_by_page_in_the_order_of_opening(stub) -> None:
    ids = [await open_session(stub, session=f"{'ab'[k % 2]}{9 - k}") for k in range(10)]
    await step(stub, ids[3], 0, 1)
    found, token = [], ""
    while token or not found:
        page = await stub.ListSessions(pb.ListSessionsRequest(page_size=3, page_token=token))
        found += page.sessions
        token = page.next_page_token
    assert [one.session for one in found] == ids
    assert [one.next_index for one in found] == [0, 0, 0, 1] + [0] * 6
    some = await stub.ListSessions(pb.ListSessionsRequest(prefix="b", model="tiny"))
    assert [one.session for one in some.sessions] == ids[1::2]
    assert not (await stub.ListSessions(pb.ListSessionsRequest(model="other"))).sessions


LISTS = {
    "a page too large": ({"page_size": 1001}, "page_size: expected at most 1000, got 1001"),
    "no token": ({"page_token": "nonsense"}, "page_token: expected one that this listing gave"),
    "a long token": ({"page_token": "A" * 1_000_000}, "page_token: expected one that this listing gave"),
}


@pytest.mark.parametrize("what", LISTS)
async def test_a_bad_listing_is_refused(stub, what: str) -> None:
    fields, message = LISTS[what]
    code, reason, text = await refused(stub.ListSessions(pb.ListSessionsRequest(**fields)))
    assert (code, reason) == ("INVALID_ARGUMENT", "INVALID_INPUT")
    assert text.startswith(message)


async def test_a_token_belongs_to_its_filters(stub) -> None:
    for _ in range(3):
        await open_session(stub)
    token = (await stub.ListSessions(pb.ListSessionsRequest(page_size=1))).next_page_token
    other = pb.ListSessionsRequest(page_size=1, page_token=token, model="tiny")
    assert (await refused(stub.ListSessions(other)))[1] == "INVALID_INPUT"


async def test_priming_a_model_that_has_no_priming_graph_is_refused(stub) -> None:
    request = pb.OpenRequest(model="tiny", priming=[pb.Array(name="source", shape=[1, 1], data=bytes(8))])
    assert (await refused(stub.Open(request)))[:2] == ("FAILED_PRECONDITION", "MODEL_DIFFERS")


# -- restarts -----------------------------------------------------------------------------------------------------


async def test_a_restart_keeps_copies_answers_and_the_order_of_opening(
    repository: Path, tmp_path: Path
) -> None:
    fork = pb.ForkRequest(count=2, request_id="fork")
    async with another(repository, state_dir=tmp_path) as (_, stub):
        gone, source = await open_session(stub, session="gone"), await stepped(stub, 1, session="source")
        fork.session = source
        made = await stub.Fork(fork)
        await stub.Close(pb.CloseRequest(session=gone))
        await stub.Open(
            pb.OpenRequest(model="tiny", version="1", session="last")
        )  # takes the place of `gone`
        taken = await stub.Snapshot(pb.SnapshotRequest(session=source))
        restore = pb.RestoreRequest(session=source, snapshot=taken.snapshot, request_id="restore")
        await stub.Restore(restore)
        await step(stub, source, 1, 9)
        order = [one.session for one in (await stub.ListSessions(pb.ListSessionsRequest())).sessions]
    async with another(repository, state_dir=tmp_path) as (_, stub):
        listed = (await stub.ListSessions(pb.ListSessionsRequest())).sessions
        assert [one.session for one in listed] == order == [*made.copies, "last", "source"]
        assert [one.pinned for one in listed] == [False, False, True, False]
        assert await stub.Fork(fork) == made
        assert (await stub.Restore(restore)).next_index == 1
        assert (await stub.Describe(pb.DescribeRequest(session=source))).next_index == 2
        assert await step(stub, made.copies[0], 1, 5) == await step(stub, await stepped(stub, 1), 1, 5)


async def test_nothing_ends_or_unloads_while_the_sessions_are_being_written(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, still = drain_file.save, list[bool]()

    async def watched(*args: Any) -> int:
        still.extend(not task.done() for task in server._watching)
        return await save(*args)

    monkeypatch.setattr(drain_file, "save", watched)
    async with another(repository, state_dir=tmp_path) as (server, stub):
        await open_session(stub)
    assert still
    assert not any(still)
