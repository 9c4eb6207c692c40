"""Every recurrence, exported through the door: torch = ONNX = through gRPC, and whole = in chunks."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest

from carousel.client import AsyncClient
from carousel.contract import Contract
from export.characters import characters_model
from export.door import write_verified
from export.metadata import contract_of, set_contract
from export.options import PLAIN, Options
from export.runtime import OnnxStep
from model.tasks.characters import CharacterModel
from service.server import Server, start_server
from service.settings import Settings
from tests.kinds import KINDS, TOLERANCE, by_the_equations
from tests.models import EMBEDDING, SYMBOLS, tiny_checkpoint

OPTIONS = {"lstm-observed": Options(observe=True)}
FUSED = {
    **dict.fromkeys(("lstm", "peephole", "coupled", "regularised"), "LSTM"),
    **dict.fromkeys(("gru", "gru-reset-before"), "GRU"),
}
"""All others are a Scan a layer."""
STEPS = 100


class Exported(NamedTuple):
    """A model and what became of it."""

    model: CharacterModel
    graph: onnx.ModelProto
    contract: Contract


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cells")


@pytest.fixture(scope="module")
def models(folder: Path) -> dict[str, Exported]:
    """One small model of each kind, two layers, exported and verified."""
    found = {}
    for kind, settings in KINDS.items():
        checkpoint = tiny_checkpoint(hidden=EMBEDDING, layers=2, **settings)
        graph = characters_model(checkpoint, OPTIONS.get(kind, PLAIN))
        # What makes the door slow is its thousands of steps.
        set_contract(graph, contract_of(graph).model_copy(update={"max_steps": STEPS}))
        file = write_verified(graph, checkpoint.model, folder / kind / "1").file
        found[kind] = Exported(checkpoint.model, onnx.load(file), contract_of(graph))
    return found


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def test_a_model_is_one_form_of_recurrence(models: dict[str, Exported], kind: str) -> None:
    used = [
        n.op_type
        for n in models[kind].graph.graph.node
        if n.op_type in {"LSTM", "GRU", "RNN", "Scan", "Loop"}
    ]
    assert used == [FUSED.get(kind, "Scan")] * 2


def test_every_model_promises_the_same_bits_in_any_batch(models: dict[str, Exported], kind: str) -> None:
    assert models[kind].contract.invariant


def test_ragged_rows_and_their_states_are_those_of_the_equations(
    models: dict[str, Exported], kind: str
) -> None:
    model, graph, contract = models[kind]
    rng = np.random.default_rng(0)
    lengths = np.array([7, 1, 12, 4], dtype=np.int32)
    tokens = rng.integers(len(SYMBOLS), size=(4, 12))
    rows = rng.uniform(-0.5, 0.5, (4, contract.state_size)).astype(np.float32)

    outputs, after = OnnxStep(graph, contract)(tokens, lengths, rows)

    for k, length in enumerate(lengths):
        logits, row = by_the_equations(model, tokens[k, :length], rows[k])
        np.testing.assert_allclose(outputs[k, :length], logits, rtol=TOLERANCE, atol=TOLERANCE)
        np.testing.assert_allclose(after[k], row, rtol=TOLERANCE, atol=TOLERANCE)


def test_the_segments_are_the_parts_of_the_cells_states(models: dict[str, Exported], kind: str) -> None:
    model, _, contract = models[kind]
    expected = [
        (f"layer{layer}.{name}", part.shape[1])
        for layer, state in enumerate(model.stack.initial_state(1))
        for name, part in state._asdict().items()
    ]
    assert [(segment.name, segment.size) for segment in contract.segments] == expected


@pytest.fixture
async def served(models: dict[str, Exported], folder: Path) -> AsyncIterator[Server]:
    server = await start_server(Settings.load({"models": folder, "grpc_port": 0, "http_port": 0}))
    yield server
    await server.stop()


async def test_the_service_answers_what_torch_computes_whole_and_in_chunks(
    served: Server, models: dict[str, Exported]
) -> None:
    tokens = np.random.default_rng(1).integers(len(SYMBOLS), size=20)
    async with AsyncClient(f"127.0.0.1:{served.grpc_port}") as client:
        for kind, (model, _, contract) in models.items():
            expected, _ = by_the_equations(model, tokens, np.zeros(contract.state_size, np.float32))
            answers = []
            for cuts in ([], [1, 2, 3, 9]):
                session = await client.open(kind)
                parts = [(await session.step(chunk))["logits"] for chunk in np.split(tokens, cuts)]
                answers.append(np.concatenate(parts))
            np.testing.assert_allclose(answers[0], expected, rtol=TOLERANCE, atol=TOLERANCE, err_msg=kind)
            assert answers[0].tobytes() == answers[1].tobytes(), kind


async def test_what_the_gates_of_an_observed_model_do_is_in_the_metrics(served: Server) -> None:
    tokens = np.random.default_rng(2).integers(len(SYMBOLS), size=5)
    async with AsyncClient(f"127.0.0.1:{served.grpc_port}") as client:
        session = await client.open("lstm-observed")
        await session.step(tokens[:3])
        await session.step(tokens[3:])
    labels = {"model": "lstm-observed/1", "statistic": "layer1.forget.mean"}
    value = served.metrics.registry.get_sample_value
    assert value("carousel_gates_count", labels) == 2
    total = value("carousel_gates_sum", labels)
    assert total is not None
    assert 0 < total < 2
    assert value("carousel_gates_bucket", labels | {"le": "1.0"}) == 2
