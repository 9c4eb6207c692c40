"""Random histories of primed sessions: every answer is what torch gives, and no row is left behind."""

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from carousel.wire import carousel_pb2 as pb
from tests.ports_model import serving
from tests.whole import MOST_SOURCE, SOURCE, TARGET, draw, pair

SESSIONS = 6
EVENTS = 250


class Twin(NamedTuple):
    """A session as it must be."""

    read: tuple[int, ...]
    fed: tuple[int, ...] = ()


class History:
    """What happened so far."""

    def __init__(self, server: Any, stub: Any, seed: int) -> None:
        self.server, self.stub = server, stub
        self.chance = random.Random(seed)
        self.model = pair(attention=True).model
        self.twins: dict[str, Twin] = {}
        self.snapshots: list[tuple[bytes, Twin]] = []
        self.happened: set[str] = set()

    async def event(self) -> None:
        events = [self.open, self.step, self.step, self.step]
        if self.twins:
            events += [self.fork, self.snapshot, self.close]
        if self.snapshots:
            events += [self.restore, self.open_from]
        event = self.chance.choice(events)
        self.happened.add(event.__name__)
        await event()

    @property
    def some(self) -> str:
        return self.chance.choice(sorted(self.twins))

    @property
    def is_full(self) -> bool:
        return len(self.twins) == SESSIONS

    async def open(self) -> None:
        if not self.is_full:
            steps = self.chance.randint(1, MOST_SOURCE)
            twin = Twin(tuple(self.chance.randrange(len(SOURCE)) for _ in range(steps)))
            source = pb.Array(name="source", shape=[1, steps], data=np.array(twin.read, "<i8").tobytes())
            opened = await self.stub.Open(pb.OpenRequest(model="pair", priming=[source]))
            self.twins[opened.session] = twin

    async def open_from(self) -> None:
        if not self.is_full:
            made, twin = self.chance.choice(self.snapshots)
            opened = await self.stub.Open(pb.OpenRequest(model="pair", snapshot=made))
            assert opened.next_index == len(twin.fed)
            self.twins[opened.session] = twin

    async def fork(self) -> None:
        if not self.is_full:
            session, count = self.some, self.chance.randint(1, SESSIONS - len(self.twins))
            forked = await self.stub.Fork(pb.ForkRequest(session=session, count=count))
            self.twins |= dict.fromkeys(forked.copies, self.twins[session])

    async def snapshot(self) -> None:
        session = self.some
        made = await self.stub.Snapshot(pb.SnapshotRequest(session=session))
        self.snapshots.append((made.snapshot, self.twins[session]))

    async def restore(self) -> None:
        if self.twins:
            session, (made, twin) = self.some, self.chance.choice(self.snapshots)
            await self.stub.Restore(pb.RestoreRequest(session=session, snapshot=made))
            self.twins[session] = twin

    async def close(self) -> None:
        session = self.some
        await self.stub.Close(pb.CloseRequest(session=session))
        del self.twins[session]

    async def step(self) -> None:
        if not self.twins:
            return
        session, token = self.some, self.chance.randrange(len(TARGET))
        tensor = pb.Tensor(name="tokens", data=np.array([token], "<i8").tobytes())
        answer = await self.stub.Step(pb.StepRequest(session=session, inputs=[tensor]))
        read, fed = self.twins[session]
        twin = self.twins[session] = Twin(read, (*fed, token))
        with torch.no_grad():
            expected = self.model(torch.tensor([twin.read]), torch.tensor([twin.fed]))[0, -1]
        logits = np.frombuffer(answer.outputs[0].data, "<f4")
        np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-4, atol=1e-4)

    def check_rows(self) -> None:
        """Each row that is read is some session's, and copies may share one."""
        engine = self.server.engine
        model = engine.models.find("pair")
        slots = engine.table.of_model(model.number)
        assert len(slots) == len(self.twins)
        assert model.memory.used == len(set(engine.table.memory[slots].tolist())) <= len(slots)


@pytest.fixture
async def history(tmp_path: Path, seed: int) -> AsyncIterator[History]:
    """With more sessions than are resident."""
    draw(tmp_path, "pair", pair(attention=True))
    settings = {
        "max_sessions": SESSIONS,
        "max_batch": 8,
        "resident_sessions": 2,
        "state_dir": tmp_path / "state",
    }
    async with serving(tmp_path, **settings) as (server, stub):
        yield History(server, stub, seed)


@pytest.mark.parametrize("seed", range(3))
async def test_primed_sessions_answer_what_torch_answers_and_leave_no_row(history: History) -> None:
    for _ in range(EVENTS):
        await history.event()
        history.check_rows()
    assert history.happened >= {"open", "open_from", "fork", "snapshot", "restore", "close", "step"}
    while history.twins:
        await history.close()
    history.check_rows()
    model = history.server.engine.models.find("pair")
    assert (model.rows.used, model.memory.used) == (0, 0)
