"""The same histories over a real arena in ONNX Runtime: its rows hold the laws, whatever a run leaves behind.

On the CPU provider, and on CUDA where a GPU is. The figures are whole numbers, exact on both.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tests.fakes
from carousel.contract import METADATA_KEY, Arena
from service.arena_backend import ArenaBackend
from service.arena_store import ArenaStore
from service.backend import Result, Run
from service.runtime import Provider, make_session
from service.spill import SpillFile
from tests.fakes import FACTOR, MODULUS, contract
from tests.gpu import PROVIDERS
from tests.simulation.history import History
from tests.simulation.twin import POISON

HISTORIES = {"cpu": 60, "cuda": 20}
SCRATCH = 8
"""The largest batch of a history."""
ARENA = Arena(read_rows="read_rows", write_rows="write_rows", finite="finite")
CONTRACT = contract().model_copy(update={"format": 4, "form": "arena", "arena": ARENA})


class ArenaFake(ArenaBackend):
    """The fake model as a graph over an arena. A run fails after it has written, which is the worst it can do."""

    has_planes = False
    """No graph of the arena form does."""
    provider: Provider = "cpu"

    def __init__(self, rows: int, places: int) -> None:
        self.folder = TemporaryDirectory()
        self.file = SpillFile(Path(self.folder.name, "rows"), places, 1)
        self.store = ArenaStore(CONTRACT, rows, SCRATCH, self.provider, self.file)
        self.factor, self.fail_next = FACTOR, False
        OPEN.append(self)
        super().__init__(session_of(FACTOR, self.provider), CONTRACT, self.store)

    def tuned(self, factor: int) -> "ArenaFake":
        """Another version over the same rows."""
        twin = ArenaFake.__new__(ArenaFake)
        ArenaBackend.__init__(twin, session_of(factor, self.provider), CONTRACT, self.store)
        twin.store, twin.factor, twin.fail_next = self.store, factor, False
        return twin

    def run(self, run: Run) -> Result:
        assert (run.write_rows >= 1).all()
        result = super().run(run)
        self._fail("the run failed on purpose")
        return result

    def write(self, rows: np.ndarray, states: np.ndarray) -> None:
        self._fail("writing failed on purpose")
        super().write(rows, states)

    def spill(self, rows: np.ndarray, places: np.ndarray) -> None:
        self._fail("the disk is full, on purpose")
        super().spill(rows, places)

    def _fail(self, why: str) -> None:
        if self.fail_next:
            self.fail_next = False
            raise RuntimeError(why)


OPEN: list[ArenaFake] = []


@cache
def session_of(factor: int, provider: Provider) -> Any:
    return make_session(fake_graph(factor).SerializeToString(), provider, 1)


def fake_graph(factor: int) -> onnx.ModelProto:
    """`s <- (factor s + x) mod 65521`, infinite from the first poisoned step on, as `tests.fakes` has it."""
    real = TensorProto.FLOAT
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["s", "factor"], ["product"]),
            helper.make_node("Add", ["product", "x"], ["sum"]),
            helper.make_node("Mod", ["sum", "modulus"], ["stepped"], fmod=1),
            helper.make_node("Equal", ["x", "poison"], ["bad_x"]),
            helper.make_node("Abs", ["s"], ["size"]),
            helper.make_node("Equal", ["size", "infinity"], ["bad_s"]),
            helper.make_node("Or", ["bad_x", "bad_s"], ["bad"]),
            helper.make_node("Where", ["bad", "infinity", "stepped"], ["answer"]),
            helper.make_node("Where", ["lives", "answer", "s"], ["s_next"]),
        ],
        "step",
        [
            helper.make_tensor_value_info("s", real, ["B"]),
            helper.make_tensor_value_info("x", real, ["B"]),
            helper.make_tensor_value_info("lives", TensorProto.BOOL, ["B"]),
        ],
        [
            helper.make_tensor_value_info("s_next", real, ["B"]),
            helper.make_tensor_value_info("answer", real, ["B"]),
        ],
    )
    numbers = {"factor": factor, "modulus": MODULUS, "poison": POISON, "infinity": np.inf}
    body.initializer.extend(helper.make_tensor(name, real, [], [value]) for name, value in numbers.items())
    weights = {"zero": 0, "one": 1, "second": [1]}
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["state", "read_rows"], ["rows_B1"]),
            helper.make_node("Squeeze", ["rows_B1", "second"], ["rows_B"]),
            helper.make_node("Transpose", ["x"], ["x_TB"], perm=[1, 0]),
            helper.make_node("Shape", ["x"], ["T"], start=1),
            helper.make_node("Squeeze", ["T"], ["steps"]),
            helper.make_node("Range", ["zero", "steps", "one"], ["t_T"]),
            helper.make_node("Unsqueeze", ["t_T", "second"], ["t_T1"]),
            helper.make_node("Cast", ["lengths"], ["lengths_B"], to=TensorProto.INT64),
            helper.make_node("Less", ["t_T1", "lengths_B"], ["lives_TB"]),
            helper.make_node(
                "Scan", ["rows_B", "x_TB", "lives_TB"], ["next_B", "y_TB"], body=body, num_scan_inputs=2
            ),
            helper.make_node("Transpose", ["y_TB"], ["y"], perm=[1, 0]),
            helper.make_node("Unsqueeze", ["next_B", "second"], ["next_B1"]),
            helper.make_node("Sub", ["next_B1", "next_B1"], ["nothing_B1"]),
            helper.make_node("Squeeze", ["nothing_B1", "second"], ["finite"]),
            helper.make_node("Unsqueeze", ["write_rows", "second"], ["write_B1"]),
            helper.make_node("ScatterND", ["state", "write_B1", "next_B1"], ["state_out"]),
        ],
        "fake",
        [
            helper.make_tensor_value_info("x", real, ["B", "T"]),
            helper.make_tensor_value_info("lengths", TensorProto.INT32, ["B"]),
            helper.make_tensor_value_info("state", real, ["N", 1]),
            helper.make_tensor_value_info("read_rows", TensorProto.INT64, ["B"]),
            helper.make_tensor_value_info("write_rows", TensorProto.INT64, ["B"]),
        ],
        [
            helper.make_tensor_value_info("y", real, ["B", "T"]),
            helper.make_tensor_value_info("state_out", real, ["N", 1]),
            helper.make_tensor_value_info("finite", real, ["B"]),
        ],
        [
            helper.make_tensor(
                name, TensorProto.INT64, [len(value)] if isinstance(value, list) else [], np.atleast_1d(value)
            )
            for name, value in weights.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model.metadata_props.add(key=METADATA_KEY, value=CONTRACT.to_json())
    return model


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> Provider:
    return request.param


@pytest.fixture
def over_arenas(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ArenaFake, "provider", provider)
    monkeypatch.setattr(tests.fakes, "FakeBackend", ArenaFake)
    yield
    for backend in OPEN:
        backend.file.close()
        backend.folder.cleanup()
    OPEN.clear()


def test_every_history_over_an_arena_ends_as_if_each_step_had_been_applied_once(
    over_arenas: None, provider: Provider
) -> None:
    for seed in range(HISTORIES[provider]):
        try:
            History(seed).run()
        except Exception as error:
            error.add_note(f"replay it over arenas on {provider} with History({seed}).run()")
            raise
    assert sum(len(backend._buckets) for backend in OPEN) > HISTORIES[provider]
