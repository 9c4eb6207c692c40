"""A server with models of every kind, and somebody on each of them who behaves."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import grpc
import numpy as np
import onnx

from carousel.wire import carousel_pb2 as pb
from carousel.wire.carousel_pb2_grpc import CarouselStub
from export.options import PLAIN
from export.tasks import step_model
from service.errors import SessionClosedError
from service.kept import WINDOW_CHUNKS
from service.repository import ServedModel
from service.server import Server, start_server
from service.sessions import HIDDEN
from service.settings import Settings
from tests.loops import floats, growth
from tests.models import tiny_checkpoint
from tests.ports_model import save
from tests.whole import TARGET, both_ways, draw, pair, tree
from tests.wire import V, attach, tokens

KEY = b"what the server of the fuzzers seals its snapshots with"
MOST_SESSIONS = 48
ERRAND_S = 0.001
REPLAYED = 1000
"""Steps of a witness that are made once more at the end."""
WITNESS = "witness "
"""How the ids of well-behaved sessions begin."""
NEWEST = "7"
"""A version of `tiny` that cannot be loaded."""


class Kind(NamedTuple):
    """A model with sessions, and what its well-behaved session sends."""

    step: Callable[[int], list[pb.Tensor]]
    """The inputs of the k-th step."""
    priming: tuple[pb.Array, ...] = ()


def array(name: str, values: object, dtype: str) -> pb.Array:
    with np.errstate(over="ignore"):
        made = np.asarray(values, dtype)
    return pb.Array(name=name, shape=made.shape, data=made.tobytes())


KINDS = {
    "tiny": Kind(lambda k: tokens(k * 7 % V)),
    "reads": Kind(lambda k: tokens(k * 7 % len(TARGET)), (array("source", [[1, 2, 3]], "<i8"),)),
    "growth": Kind(lambda k: [floats("level", [k % 5, 1]), floats("push", [k % 3])]),
}
WHOLE = {
    "both": [array("tokens", [[1, 2, 3], [4, 5, 6]], "<i8")],
    "tree": [
        array("x", np.linspace(-1, 1, 15).reshape(3, 5), "<f4"),
        array("children", [[-1, -1, -1], [0, -1, -1], [1, -1, 0]], "<i4"),
    ],
}
"""Inputs of models that have no sessions."""
SESSIONS = {f"s{k}": "tiny" for k in range(4)} | {"p0": "reads", "p1": "reads", "g0": "growth"}
"""To be ill-treated, and their models."""


def write_models(folder: Path) -> None:
    """A repository with a model of each kind; `tiny` has two versions over the same rows."""
    save(step_model(tiny_checkpoint(hidden=8), PLAIN), folder, "tiny")
    draw(folder, "reads", pair(attention=True))
    save(growth(), folder, "growth")
    draw(folder, "both", both_ways())
    draw(folder, "tree", tree())


def write_versions(folder: Path) -> None:
    """More versions of `tiny`, for who asks for them: one takes over, one has other rows, one is damaged."""
    for version, hidden in (("2", 8), ("3", 6)):
        (folder / "tiny" / version).mkdir()
        made = step_model(tiny_checkpoint(hidden=hidden, seed=1), PLAIN)
        onnx.save(made, folder / "tiny" / version / "model.onnx")
    (folder / "tiny" / NEWEST).mkdir()
    (folder / "tiny" / NEWEST / "model.onnx").write_bytes(b"no graph")


class Beside:
    """A server, well-behaved sessions, and others for whoever does not behave."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server: Server, channel: grpc.aio.Channel) -> None:
        self.loop, self.server, self.channel = loop, server, channel
        self.stub = CarouselStub(channel)
        self.heard: dict[str, list[bytes]] = {model: [] for model in KINDS}
        """What each witness was answered."""
        self.inferred: dict[str, bytes] = {}
        self.snapshots: dict[str, bytes] = {}
        """One of each kind, some steps old."""
        self.round, self.failures = 0, 0.0
        self.unseen: list[str] = []
        """Errors that nobody has asked for: what fails after its caller has left is no failure of the server."""
        loop.set_exception_handler(lambda _, context: self.unseen.append(f"{context}"))

    @classmethod
    async def start(cls, loop: asyncio.AbstractEventLoop, folder: Path) -> "Beside":
        """Write the models, serve them, and let the witnesses begin."""
        write_models(folder / "models")
        (folder / "key").write_bytes(KEY)
        given = {"models": folder / "models", "snapshot_key_file": folder / "key", "max_batch": 8}
        ports = {"grpc_port": 0, "http_port": 0}
        server = await start_server(Settings.load({**given, **ports, "max_sessions": MOST_SESSIONS}))
        write_versions(folder / "models")
        beside = cls(loop, server, grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}"))
        await beside.begin()
        beside.slow_down()
        return beside

    def slow_down(self) -> None:
        """Let what touches rows take its time, so that much can happen meanwhile."""
        engine, dispatch = self.server.engine, self.server.engine._dispatch
        engine._dispatch = lambda job, done: self.loop.call_later(ERRAND_S, dispatch, job, done)  # type: ignore[assignment]

    async def begin(self) -> None:
        """Witnesses stay with their versions: what others load is nothing to them."""
        self.stream = self.stub.Stream()
        for model in KINDS:
            await self.open(model, WITNESS + model, version="1")
        await self.stream.write(attach(*(WITNESS + model for model in KINDS)))
        await self.stream.read()
        await self.step()
        for model in KINDS:
            made = await self.stub.Snapshot(pb.SnapshotRequest(session=WITNESS + model))
            self.snapshots[model] = made.snapshot
        self.inferred = {model: await self.infer(model) for model in WHOLE}

    async def open(self, model: str, session: str, version: str = "") -> None:
        request = pb.OpenRequest(model=model, version=version, session=session, priming=KINDS[model].priming)
        await self.stub.Open(request)

    async def open_others(self) -> None:
        """Sessions to be ill-treated. What an example before has left, it has been blamed for."""
        await self.close_others()
        self.round, self.failures = self.round + 1, self.count_failures()
        self.unseen.clear()
        for session, model in SESSIONS.items():
            await self.open(model, session)

    async def step(self) -> None:
        """Every witness makes a step."""
        for handle, (model, heard) in enumerate(self.heard.items()):
            inputs, index = KINDS[model].step(len(heard)), len(heard)
            frame = pb.StepFrame(
                handles=[handle], first_indices=[index], acknowledged=[index], lengths=[1], inputs=inputs
            )
            await self.stream.write(pb.StreamRequest(steps=frame))
            answers = (await self.stream.read()).answers
            assert (answers.model, answers.version, list(answers.lengths)) == (model, "1", [1])
            heard.append(b"".join(output.data for output in answers.outputs))

    async def infer(self, model: str) -> bytes:
        answer = await self.stub.Infer(pb.InferRequest(model=model, inputs=WHOLE[model]))
        return b"".join(output.data for output in answer.outputs)

    def served(self, model: str) -> ServedModel:
        """The version that its witness stays with."""
        return self.server.engine.models.versions_of(model, "1")[0]

    # -- laws -----------------------------------------------------------------------------------------------------

    async def check(self) -> None:
        """Nothing of what was done is left, once its sessions are closed; whoever behaves is served."""
        await self.close_others()
        await self.step()
        for name, before in self.inferred.items():
            assert await self.infer(name) == before
        self.check_nothing_is_left()
        assert self.server.metrics.registry.get_sample_value("carousel_streams") == 1
        assert self.count_failures() == self.failures
        assert not self.unseen

    async def close_others(self) -> None:
        """Wait until nothing is on its way, close all sessions but the witnesses', and serve what was served."""
        async with asyncio.timeout(10):
            while not self.is_quiet:
                await asyncio.sleep(0.001)
        engine = self.server.engine
        for model in list(engine.models):
            for slot in engine.table.of_model(model.number).tolist():
                if not engine.table.id_of(slot).startswith(WITNESS):
                    engine.end(slot, SessionClosedError)
        for name in (*KINDS, *WHOLE):
            if f"{name}/1" not in engine.models.keys:
                await self.stub.LoadModel(pb.LoadModelRequest(name=name, version="1"))

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is on its way, and what the server made for itself is gone."""
        engine, api = self.server.engine, self.server._api
        busy = engine.queue.chunks or engine.unread_bytes or engine.waiting_errands or engine.running_s()
        calls = api._waiting or any(kind._under_way for kind in api._kinds.values())
        return not (busy or calls or engine.offered or engine.table.count_of(HIDDEN))

    def count_failures(self) -> float:
        """Calls that ended with a status that no call may end with."""
        samples = self.server.metrics.requests.collect()[0].samples
        return sum(one.value for one in samples if one.labels["code"] in ("INTERNAL", "UNKNOWN"))

    def check_nothing_is_left(self) -> None:
        engine = self.server.engine
        assert len(engine.table) == len(KINDS)
        assert engine.queue.promised_bytes == 0
        for loaded in engine.models:
            is_witnessed = loaded.rows is self.served(loaded.name).rows
            assert loaded.rows.used == is_witnessed, loaded.key
            assert loaded.memory is None or loaded.memory.used == is_witnessed, loaded.key
        assert engine.kept.total_bytes <= WINDOW_CHUNKS * sum(
            self.served(model).step_bytes for model in KINDS
        )

    async def end(self) -> None:
        """The well-behaved sessions end as if they had been alone."""
        self.stream.cancel()
        for model, heard in self.heard.items():
            await self.open(model, "alone")
            for index, answer in enumerate(heard[:REPLAYED]):
                request = pb.StepRequest(session="alone", inputs=KINDS[model].step(index))
                outputs = (await self.stub.Step(request)).outputs
                assert b"".join(output.data for output in outputs) == answer, f"{model}, step {index}"
            await self.stub.Close(pb.CloseRequest(session="alone"))
        await self.channel.close()
        await self.server.stop()
