"""The fake model as one of tokens, and calls of the server's loops on a line that the test holds."""

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np

from carousel.contract import Contract, Port, Signature, layout_hash
from carousel.wire import carousel_pb2 as pb
from service.backend import Result, Run
from service.engine import Engine
from service.loop_calls import LoopCalls
from service.metrics import Metrics
from service.repository import ServedModel
from tests.fakes import FakeBackend, Harness
from tests.fakes import contract as numbers_contract

SYMBOLS = tuple("abcdefg")
V = len(SYMBOLS)


def contract(**scores: Any) -> Contract:
    numbers = numbers_contract()
    inputs = (Port(name="x", dtype="int64", vocabulary=SYMBOLS),)
    outputs = (Port(name="y", dtype="float32", shape=(V,), vocabulary=SYMBOLS, **scores),)
    layout = layout_hash("fake", inputs, outputs, numbers.planes, numbers.segments)
    changed = {"inputs": inputs, "outputs": outputs, "signature": Signature(layout=layout, lineage="fake")}
    return numbers.model_copy(update=changed)


class TokenBackend(FakeBackend):
    """Answers scores that no two states share."""

    mute = False
    """Answers what is no number."""

    def run(self, run: Run) -> Result:
        result = super().run(run)
        scores = np.sin(result.outputs[0][..., None] * np.arange(1, V + 1)).astype(np.float32)
        return replace(result, outputs=(scores * np.float32(np.nan if self.mute else 3),))


class TokenHarness(Harness):
    """An engine over the fake model of tokens, and the calls over it."""

    def __init__(self, **limits: Any) -> None:
        super().__init__(**limits)
        before = self.engine
        self.backend = TokenBackend(self.model.rows.capacity, before.limits.sessions)
        self.model = ServedModel("fake", "1", contract(), self.backend, self.model.rows)
        self.metrics = Metrics()
        self.engine = Engine(
            [self.model],
            before.limits,
            lambda job, done: self.jobs.append((job, done)),
            self.metrics,
            lambda: self.now,
            self.soon.append,
            lambda delay, callback: self.timers.append((self.now + delay, callback)),
        )
        self.table = self.engine.table
        self.calls = LoopCalls(self.engine, self.metrics, 1000.0, 1 << 20)

    def generate(self, line: "Line", **fields: Any) -> "asyncio.Task[None]":
        """Begin a call that writes to a line."""
        wish = {"session": "s", "prompt": [1, 2, 3], "max_tokens": 200, "request_id": "g"} | fields
        return asyncio.create_task(self.calls.Generate(pb.GenerateRequest(**wish), line))

    async def turns(self, count: int) -> None:
        """Let the tasks and the engine take turns."""
        for _ in range(count):
            await asyncio.sleep(0)
            self.turn()

    async def rest(self) -> None:
        """Until nothing happens any more."""
        quiet = 0
        while quiet < 10:
            await asyncio.sleep(0)
            quiet = 0 if self.turn() else quiet + 1


class Line:
    """The server's end of a call. The test decides when the client reads."""

    def __init__(self, *, reads: bool = True) -> None:
        self.written: list[pb.GenerateResponse] = []
        self.reads = asyncio.Event()
        if reads:
            self.reads.set()

    async def write(self, response: pb.GenerateResponse) -> None:
        await self.reads.wait()
        self.written.append(response)

    @property
    def tokens(self) -> list[int]:
        return [token for response in self.written for token in response.tokens]
