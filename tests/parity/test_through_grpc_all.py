"""Every kind of model: torch = ONNX = through gRPC, whole = in chunks, and copies that go on bit for bit."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import pytest_asyncio
import torch
from numpy.typing import NDArray

from carousel.client import AsyncClient, InvalidInputError, ModelDiffersError
from export.encoder_decoder import Pair
from export.options import PLAIN
from export.tasks import step_model
from model.cells import CELLS
from model.tree import Forest, over_forest
from service.server import Server
from tests.models import SYMBOLS, tiny_checkpoint
from tests.ports_model import save, serving
from tests.whole import FEATURES, SOURCE, TARGET, both_ways, draw, pair, tree, write

TOLERANCE = 1e-5
"""Float32 sums in another order: the fused kernels of torch and of ONNX Runtime differ by some 1e-7 a step."""
STEPS, CUTS = 24, [1, 2, 9]
START, END = 0, 1
"""Tokens that begin and end what a decoder writes."""

SETTINGS: dict[str, dict[str, Any]] = {kind: {"cell": {"kind": kind}} for kind in CELLS}
SETTINGS["projected"]["cell"]["projection"] = 5
PAIRS: dict[str, Any] = {
    "pair": {},
    "attention": {"attention": True},
    "both-ways-attention": {"attention": True, "both_ways": True, "layers": 2},
}
WHOLE = {"both-ways": both_ways(), "both-ways-once": both_ways(each=False), "tree": tree()}

Values = NDArray[Any]

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of every cell and of every kind."""
    folder = tmp_path_factory.mktemp("all")
    for kind, settings in SETTINGS.items():
        save(step_model(tiny_checkpoint(hidden=8, **settings), PLAIN), folder, kind)
    for name, whole in WHOLE.items():
        draw(folder, name, whole)
    for name, settings in PAIRS.items():
        draw(folder, name, pair(**settings))
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(models: Path) -> AsyncIterator[Server]:
    async with serving(models, run_steps=8, max_batch=8) as (server, _):
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(server: Server) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(f"127.0.0.1:{server.grpc_port}") as client:
        yield client


def onnx(models: Path, name: str, feeds: dict[str, Values], file: str = "model.onnx") -> dict[str, Values]:
    """What ONNX Runtime gives in one run, with zeros for what is not fed."""
    session = onnxruntime.InferenceSession(models / name / "1" / file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    for node in session.get_inputs():
        if node.name not in feeds:
            feeds = feeds | {node.name: np.zeros((1, node.shape[1]), np.float32)}
    return dict(zip(names, session.run(names, feeds), strict=True))


def lengths(steps: int) -> dict[str, Values]:
    return {"lengths": np.array([steps], np.int32)}


def assert_close(found: Values, expected: torch.Tensor) -> None:
    np.testing.assert_allclose(found, expected.numpy(), rtol=TOLERANCE, atol=TOLERANCE)


# ---- Step by step ----


@pytest.mark.parametrize("kind", SETTINGS)
async def test_every_cell_answers_what_torch_and_its_graph_answer_whole_and_in_chunks(
    kind: str, client: AsyncClient, models: Path
) -> None:
    tokens = np.random.default_rng(0).integers(0, len(SYMBOLS), STEPS)
    model = tiny_checkpoint(hidden=8, **SETTINGS[kind]).model
    with torch.no_grad():
        expected, _ = model(torch.from_numpy(tokens)[None], model.stack.initial_state(1))
    whole, cut = await client.open(kind), await client.open(kind)
    at_once = (await whole.step(tokens))["logits"]
    chunks = [(await cut.step(chunk))["logits"] for chunk in np.split(tokens, CUTS)]
    assert_close(at_once, expected[0])
    np.testing.assert_array_equal(np.concatenate(chunks), at_once)
    graph = onnx(models, kind, {"tokens": tokens[None], **lengths(STEPS)})
    np.testing.assert_array_equal(at_once, graph["logits"][0])


# ---- All at once ----


async def infer(client: AsyncClient, models: Path, name: str, **inputs: Values) -> Values:
    """The answer, which must be the graph's."""
    answer = (await client.infer(name, inputs))["y"]
    steps = {} if "lengths" in inputs or name == "tree" else lengths(inputs["tokens"].shape[1])
    np.testing.assert_array_equal(answer, onnx(models, name, {**inputs, **steps})["y"])
    return answer


@pytest.mark.parametrize("name", ["both-ways", "both-ways-once"])
async def test_what_reads_both_ways_answers_what_torch_answers(
    name: str, client: AsyncClient, models: Path
) -> None:
    whole, tokens = WHOLE[name], np.random.default_rng(1).integers(0, 7, (1, STEPS))
    with torch.no_grad():
        read, states = whole.network(whole.before(torch.from_numpy(tokens[0])).unsqueeze(1))
        if name == "both-ways-once":
            read = torch.cat([state.hidden for state in states[-1]], dim=1)
        else:
            read = read[:, 0][None]
        expected = whole.head(read)
    alone = await infer(client, models, name, tokens=tokens)
    assert_close(alone, expected)
    ragged = np.concatenate([tokens, tokens])
    ragged[1, 5:] = 0
    both = await infer(client, models, name, tokens=ragged, lengths=np.array([STEPS, 5], np.int32))
    short = await infer(client, models, name, tokens=tokens[:, :5])
    np.testing.assert_array_equal(both[:1], alone)
    np.testing.assert_array_equal(both[1] if name == "both-ways-once" else both[1, :5], short[0])


async def test_a_tree_answers_what_torch_answers(client: AsyncClient, models: Path) -> None:
    whole = WHOLE["tree"]
    children = np.array([[-1, -1, -1], [0, -1, -1], [-1, -1, -1], [2, -1, 1]], np.int32)
    x = np.random.default_rng(2).normal(size=(len(children), FEATURES)).astype(np.float32)
    with torch.no_grad():
        forest = Forest(torch.from_numpy(children.astype(np.int64)))
        expected = whole.head(over_forest(whole.network, whole.before(torch.from_numpy(x)), forest).hidden)
    assert_close(await infer(client, models, "tree", x=x, children=children), expected)


# ---- Primed ----


def source(steps: int = 9, seed: int = 0) -> Values:
    return np.random.default_rng(seed).integers(0, len(SOURCE), (1, steps))


def decoded(of: Pair, source_BT: Values, tokens_T: Values) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = of.model(torch.from_numpy(source_BT), torch.from_numpy(tokens_T)[None])[0]
    return logits


@pytest.mark.parametrize("name", PAIRS)
async def test_a_primed_session_answers_what_torch_and_its_graphs_answer_whole_and_in_chunks(
    name: str, client: AsyncClient, models: Path
) -> None:
    tokens = np.random.default_rng(3).integers(0, len(TARGET), STEPS)
    whole, cut = [await client.open(name, priming={"source": source()}) for _ in range(2)]
    at_once = (await whole.step(tokens))["logits"]
    chunks = [(await cut.step(chunk))["logits"] for chunk in np.split(tokens, CUTS)]
    assert_close(at_once, decoded(pair(**PAIRS[name]), source(), tokens))
    np.testing.assert_array_equal(np.concatenate(chunks), at_once)
    planes = onnx(models, name, {"source": source(), **lengths(9)}, "priming.onnx")
    graph = onnx(models, name, {"tokens": tokens[None], **lengths(STEPS), **planes})
    np.testing.assert_array_equal(at_once, graph["logits"][0])


@pytest.mark.parametrize("name", PAIRS)
async def test_what_a_decoder_generates_is_the_greedy_decoding_of_torch(
    name: str, client: AsyncClient
) -> None:
    of, found = pair(**PAIRS[name]), set()
    for seed in range(4):
        read = source(3 * seed + 1, seed)
        session = await client.open(name, priming={"source": read})
        made = [token async for token in session.generate([START], 10, temperature=0, stop=[END])]
        written = [START]
        while len(written) <= 10 and (len(written) == 1 or written[-1] != END):
            written.append(int(decoded(of, read, np.array(written))[-1].argmax()))
        assert made == written[1:]
        found.add(tuple(made))
    assert len(found) > 1  # what is written depends on what was read


async def test_sessions_of_one_batch_read_their_own_sources(client: AsyncClient) -> None:
    tokens = np.random.default_rng(4).integers(0, len(TARGET), (6, 5))
    sessions = [await client.open("attention", priming={"source": source(k + 1, k)}) for k in range(6)]
    answers = await asyncio.gather(
        *(session.step(row) for session, row in zip(sessions, tokens, strict=True))
    )
    for k, answer in enumerate(answers):
        assert_close(answer["logits"], decoded(pair(**PAIRS["attention"]), source(k + 1, k), tokens[k]))


async def test_copies_and_snapshots_of_a_primed_session_go_on_bit_for_bit(client: AsyncClient) -> None:
    first, *rest = np.split(np.random.default_rng(5).integers(0, len(TARGET), 12), 4)
    session = await client.open("both-ways-attention", priming={"source": source()})
    await session.step(first)
    (copy,), snapshot = await session.fork(1), await session.snapshot()
    expected = [(await session.step(chunk))["logits"] for chunk in rest]
    other = await client.open("both-ways-attention", priming={"source": source(3, 1)})
    await other.restore(snapshot)
    third = await client.open("both-ways-attention", snapshot=snapshot)
    await session.close()  # its copies read on what it has read
    stranger = await client.open("both-ways-attention", priming={"source": source(12, 2)})
    for k, chunk in enumerate(rest):
        await stranger.step(chunk)
        for twin in (copy, other, third):
            assert twin.next_index == 3 + 3 * k
            np.testing.assert_array_equal((await twin.step(chunk))["logits"], expected[k])


async def test_a_forecast_of_a_primed_session_is_what_it_then_answers(client: AsyncClient) -> None:
    tokens = np.array([2, 3, 4])
    session = await client.open("attention", priming={"source": source()})
    (ahead,) = await session.forecast(3, [tokens])
    np.testing.assert_array_equal((await session.step(tokens))["logits"], ahead["logits"])


async def test_a_planned_restart_takes_along_what_sessions_read(models: Path, tmp_path: Path) -> None:
    tokens = np.random.default_rng(6).integers(0, len(TARGET), (2, 3))
    settings = {"state_dir": tmp_path / "state", "max_sessions": 8, "resident_sessions": 2, "max_batch": 8}
    async with (
        serving(models, **settings) as (server, _),
        AsyncClient(f"127.0.0.1:{server.grpc_port}") as client,
    ):
        sessions = []
        for k in range(4):  # more than are resident
            sessions.append(
                await client.open("attention", session=f"s{k}", priming={"source": source(k + 2, k)})
            )
            await sessions[k].step(tokens[0])
        await sessions[0].fork(["copy"])
        expected = [(await session.step(tokens[1]))["logits"] for session in sessions]
        memory = server.engine.models.find("attention").memory
        assert memory.used == 4
    async with (
        serving(models, **settings) as (server, _),
        AsyncClient(f"127.0.0.1:{server.grpc_port}") as client,
    ):
        memory = server.engine.models.find("attention").memory
        assert memory.used == 4  # the copy shares one
        copy = await client.attach("copy")
        np.testing.assert_array_equal((await copy.step(tokens[1]))["logits"], expected[0])
        for k in range(4):
            session = await client.attach(f"s{k}")
            assert session.next_index == 6
            logits = (await session.step(tokens[0]))["logits"]
            written = np.concatenate([tokens[0], tokens[1], tokens[0]])
            assert_close(logits, decoded(pair(**PAIRS["attention"]), source(k + 2, k), written)[6:])
            await session.close()
        assert memory.used == 1
        await copy.close()
        assert memory.used == 0


async def test_a_version_that_takes_over_goes_on_with_what_sessions_have_read(tmp_path: Path) -> None:
    write(tmp_path, "pair", pair(attention=True))
    async with serving(tmp_path) as (server, _), AsyncClient(f"127.0.0.1:{server.grpc_port}") as client:
        session = await client.open("pair", priming={"source": source()})
        before = (await session.step(np.array([0, 2])))["logits"]
        write(tmp_path, "pair", pair(attention=True, seed=1), version=2)
        assert (await client.load_model("pair")).took_over
        memory = server.engine.models.find("pair").memory
        assert memory.used == 1
        await session.step(np.array([3]))
        assert (await client.open("pair", priming={"source": source()})).version == "2"
        assert memory.used == 2
        with torch.no_grad():
            old, new = pair(attention=True).model, pair(attention=True, seed=1).model
            state, read = old.prime(torch.from_numpy(source()))
            logits, state = old.decode(torch.tensor([[0, 2]]), state, read)
            assert_close(before, logits[0])
            _, state = new.decode(torch.tensor([[3]]), state, read)
            expected, _ = new.decode(torch.tensor([[4]]), state, read)
        assert_close((await session.step(np.array([4])))["logits"], expected[0])


async def test_the_client_is_told_what_kind_a_model_is(client: AsyncClient) -> None:
    tokens = np.array([[1]])
    with pytest.raises(ModelDiffersError, match="goes step by step"):
        await client.infer("lstm", {"tokens": tokens})
    with pytest.raises(ModelDiffersError, match="it needs all of its input at once"):
        await client.open("tree")
    with pytest.raises(ModelDiffersError, match="needs priming inputs"):
        await client.open("attention")
    with pytest.raises(ModelDiffersError, match="'lstm' is not primed"):
        await client.open("lstm", priming={"source": tokens})
    with pytest.raises(InvalidInputError, match="expected priming inputs or a snapshot, came both"):
        await client.open("attention", priming={"source": tokens}, snapshot=b"CAROUSEL")
