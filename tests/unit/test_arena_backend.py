"""The backend of the arena form: the same answers, the same states, and no row that it may not touch.

On the CPU provider, where the answers are those of the rows form bit for bit, and on CUDA where a GPU is.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.characters import characters_model
from export.options import Options
from service.arena_backend import ArenaBackend, buckets
from service.arena_graphs import gather_graph, scatter_graph
from service.arena_store import ArenaStore
from service.backend import Backend, Run
from service.onnx_backend import OnnxBackend
from service.opening import open_model
from service.repository import ModelError
from service.row_store import RowStore
from service.rows import INITIAL_ROW
from service.runtime import CudaOptions, Provider
from service.spill import SpillFile
from tests.gpu import PROVIDERS
from tests.kinds import KINDS
from tests.models import SYMBOLS, tiny_characters, tiny_checkpoint
from tests.one_step_model import WEIGHTS, write_one_step

HIDDEN = 16
SIZE = 2 * HIDDEN
ROWS, SCRATCH = 40, 8
TOLERANCE = 1e-5
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def arena_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_characters(tmp_path_factory.mktemp("arena"), hidden=HIDDEN, target="cuda")


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_characters(tmp_path_factory.mktemp("rows"), hidden=HIDDEN)


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> Provider:
    return request.param


@pytest.fixture
def backend(arena_file: Path, tmp_path: Path, provider: Provider) -> Iterator[ArenaBackend]:
    file = SpillFile(tmp_path / "rows.spill", ROWS, 4)
    yield arena_backend(arena_file, provider, file)
    file.close()


@pytest.fixture
def plain(rows_file: Path, tmp_path: Path) -> Iterator[OnnxBackend]:
    session, contract = open_model(rows_file, "cpu", 1)
    file = SpillFile(tmp_path / "plain.spill", ROWS, 4)
    yield OnnxBackend(session, contract, RowStore(contract, ROWS, file))
    file.close()


def arena_backend(file: Path, provider: Provider, spill_file: SpillFile | None = None) -> ArenaBackend:
    session, contract = open_model(file, provider, 1)
    return ArenaBackend(session, contract, ArenaStore(contract, ROWS, SCRATCH, provider, spill_file))


def same(given: np.ndarray, expected: np.ndarray, provider: Provider) -> None:
    """CUDA sums in another order than the CPU."""
    if provider == "cpu":
        assert given.tobytes() == expected.tobytes()
    np.testing.assert_allclose(given, expected, rtol=TOLERANCE, atol=TOLERANCE)


def run_of(
    read_rows: list[int], write_rows: list[int], lengths: list[int], tokens: np.ndarray | None = None
) -> Run:
    if tokens is None:
        tokens = RNG.integers(len(SYMBOLS), size=(len(read_rows), max(lengths)))
    return Run(np.array(read_rows), np.array(write_rows), np.array(lengths, np.int32), (tokens,))


def states_of(count: int) -> np.ndarray:
    return RNG.uniform(-1, 1, (count, SIZE)).astype(np.float32)


def filled(*backends: Backend) -> np.ndarray:
    """Every row that a session can own has a state; the states of all rows."""
    states = states_of(ROWS - 1)
    for backend in backends:
        backend.write(np.arange(1, ROWS), states)
    return np.concatenate([np.zeros((1, SIZE), np.float32), states])


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_it_answers_what_the_rows_form_answers_and_touches_no_other_row(
    backend: ArenaBackend, plain: OnnxBackend, provider: Provider, batch: int, steps: int
) -> None:
    before = filled(backend, plain)
    reads, writes = RNG.permutation(np.arange(1, ROWS))[: 2 * batch].reshape(2, batch).tolist()
    lengths = RNG.integers(1, steps + 1, batch)
    lengths[0] = steps
    run = run_of(reads, writes, lengths.tolist())

    given, expected = backend.run(run), plain.run(run)

    assert given.finite is expected.finite is None
    for member, length in enumerate(lengths):
        answer = given.outputs[0][member, :length]
        same(answer, expected.outputs[0][member, :length], provider)
    everything = np.arange(ROWS)
    same(backend.read(everything), plain.read(everything), provider)
    others = np.setdiff1d(everything, writes)
    assert backend.read(others).tobytes() == before[others].tobytes()


def test_answers_stay_what_they_were_when_the_buffers_are_used_again(backend: ArenaBackend) -> None:
    first = backend.run(run_of([0, 0], [1, 2], [1, 1]))
    kept = first.outputs[0].copy()
    backend.run(run_of([1, 2], [3, 4], [1, 1]))
    assert first.outputs[0].tobytes() == kept.tobytes()


def test_a_small_batch_after_a_large_one_writes_only_its_own_rows(backend: ArenaBackend) -> None:
    """What is left in the buffers belongs to others."""
    backend.run(run_of([1, 2, 3, 4, 5, 6, 7], [11, 12, 13, 14, 15, 16, 17], [2] * 7))
    before = filled(backend)

    backend.run(run_of([1, 2, 3, 4, 5], [21, 22, 23, 24, 25], [2, 1, 1, 1, 1]))

    others = np.setdiff1d(np.arange(ROWS), np.arange(21, 26))
    assert backend.read(others).tobytes() == before[others].tobytes()


def test_an_answer_does_not_keep_those_of_others_alive(backend: ArenaBackend) -> None:
    backend.warm_up(8)
    (logits,) = backend.run(run_of([0], [1], [1])).outputs
    (few,) = backend.run(run_of([0] * 5, [1, 2, 3, 4, 5], [4, 1, 1, 1, 1])).outputs
    for answer in (logits, few):
        held = answer
        while held.base is not None:
            held = np.asarray(held.base)
        assert held.nbytes <= 2 * answer.nbytes


def test_members_that_fill_up_write_a_row_each(backend: ArenaBackend) -> None:
    backend.run(run_of([0, 0, 0, 0, 0], [1, 2, 3, 4, 5], [1] * 5))
    (bucket,) = backend._buckets.values()
    written = bucket._rows_there.numpy()[1]
    assert bucket.batch == 8
    assert len(set(written.tolist())) == 8
    assert written[:5].tolist() == [1, 2, 3, 4, 5]
    assert (written[5:] >= ROWS).all()


def test_the_first_step_reads_the_initial_row_and_never_writes_it(backend: ArenaBackend) -> None:
    backend.warm_up(5)
    backend.run(run_of([INITIAL_ROW] * 3, [1, 2, 3], [4, 2, 1]))
    assert not backend.read(np.array([INITIAL_ROW])).any()


def test_a_chunk_may_go_on_in_the_row_it_wrote(
    backend: ArenaBackend, plain: OnnxBackend, provider: Provider
) -> None:
    tokens = RNG.integers(len(SYMBOLS), size=(1, 6))
    plain.run(run_of([0], [1], [6], tokens))
    for read_row, part in zip((0, 1, 1), np.split(tokens, 3, axis=1), strict=True):
        backend.run(run_of([read_row], [1], [2], part))
    same(backend.read(np.array([1])), plain.read(np.array([1])), provider)


def test_a_state_that_is_not_finite_is_told_and_costs_no_other_row(backend: ArenaBackend) -> None:
    before = filled(backend)
    sick = before[[2]].copy()
    sick[0, HIDDEN] = np.nan
    backend.write(np.array([2]), sick)

    result = backend.run(run_of([1, 2, 3], [11, 12, 13], [1, 2, 1]))

    assert result.finite is not None
    assert result.finite.tolist() == [True, False, True]
    others = np.setdiff1d(np.arange(ROWS), [2, 11, 12, 13])
    assert backend.read(others).tobytes() == before[others].tobytes()
    assert np.isfinite(backend.read(np.array([11, 13]))).all()
    assert backend.run(run_of([1, 3], [21, 22], [1, 1])).finite is None


@pytest.mark.parametrize("provider", ["cpu"], indirect=True)
def test_a_run_that_fails_leaves_the_rows_that_sessions_have(backend: ArenaBackend) -> None:
    """CUDA's Gather does not tell of an index that is too large: the service looks at tokens before."""
    before = filled(backend)
    bad = np.array([[0], [len(SYMBOLS)]])
    with pytest.raises(Exception, match="out of data bounds"):
        backend.run(run_of([1, 2], [11, 12], [1, 1], bad))
    others = np.setdiff1d(np.arange(ROWS), [11, 12])
    assert backend.read(others).tobytes() == before[others].tobytes()
    assert backend.run(run_of([1, 2], [11, 12], [1, 1])).finite is None


def test_rows_go_to_the_spill_file_and_run_from_there(
    backend: ArenaBackend, plain: OnnxBackend, provider: Provider
) -> None:
    before = filled(backend, plain)
    for one in (backend, plain):
        one.spill(np.array([3, 4, 5]), np.array([7, 0, 1]))
        one.write(np.array([3, 4, 5]), np.zeros((3, SIZE), np.float32))
    run = run_of([-8, 6, -1, 0], [11, 12, 13, 14], [2, 3, 1, 2])

    given, expected = backend.run(run), plain.run(run)

    assert backend.read(np.array([-8, -1, -2])).tobytes() == before[[3, 4, 5]].tobytes()
    same(given.outputs[0][0, :2], expected.outputs[0][0, :2], provider)
    everything = np.arange(ROWS)
    same(backend.read(everything), plain.read(everything), provider)


def test_a_model_that_begins_with_other_numbers_begins_with_them(
    arena_file: Path, rows_file: Path, provider: Provider
) -> None:
    """Two versions over one store, each with its own beginning."""
    session, contract = open_model(arena_file, provider, 1)
    start = tuple(states_of(1)[0].tolist())
    begins = contract.model_copy(update={"initial": start})
    store = ArenaStore(contract, ROWS, SCRATCH, provider)
    zeros, other = ArenaBackend(session, contract, store), ArenaBackend(session, begins, store)
    plain_session, plain_contract = open_model(rows_file, "cpu", 1)
    plain_contract = plain_contract.model_copy(update={"initial": start})
    plain = OnnxBackend(plain_session, plain_contract, RowStore(plain_contract, ROWS))
    run = run_of([0, 0, 0], [1, 2, 3], [2, 1, 2])

    given, expected = other.run(run), plain.run(run)

    same(given.outputs[0][1, 0], expected.outputs[0][1, 0], provider)
    same(other.read(np.arange(4)), plain.read(np.arange(4)), provider)
    assert not zeros.read(np.array([0])).any()


def test_warming_up_and_capturing_touch_no_row_of_a_session(backend: ArenaBackend) -> None:
    backend.run(run_of([1, 2, 3], [11, 12, 13], [1] * 3))  # their rows are in the buffers
    before = filled(backend)
    backend.warm_up(6)
    captures = backend.captures(6)
    assert len(captures) == len(buckets(6)) == 4
    for capture in captures:
        capture()
    assert backend.read(np.arange(ROWS)).tobytes() == before.tobytes()


def test_each_size_of_batch_has_a_graph_of_its_own_and_longer_runs_have_none(backend: ArenaBackend) -> None:
    backend.warm_up(8)
    for capture in backend.captures(8):
        capture()
    backend.run(run_of([0, 0], [1, 2], [3, 2]))
    numbers = {
        size: bucket._graph.get_run_config_entry("gpu_graph_id") for size, bucket in backend._buckets.items()
    }
    assert numbers == {(1, 1): "1", (2, 1): "2", (4, 1): "3", (8, 1): "4", (1, 2): "-1", (2, 4): "-1"}


def test_one_size_of_batch_is_recorded_alone_under_the_number_that_it_has_among_all(
    backend: ArenaBackend,
) -> None:
    backend.record(5)
    ((size, bucket),) = backend._buckets.items()
    assert (size, bucket._graph.get_run_config_entry("gpu_graph_id")) == ((8, 1), "4")


def test_a_recorded_run_gives_what_the_run_gives(tmp_path: Path, provider: Provider) -> None:
    file = write_one_step(tmp_path / "model.onnx")
    captured, plain = (
        ArenaBackend(session, contract, ArenaStore(contract, ROWS, SCRATCH, provider))
        for session, contract in (
            open_model(file, provider, 1, cuda=CudaOptions(graphs=graphs)) for graphs in (True, False)
        )
    )
    states = RNG.uniform(-1, 1, (ROWS - 1, 4)).astype(np.float32)
    for backend in (captured, plain):
        backend.warm_up(SCRATCH)
        backend.write(np.arange(1, ROWS), states)
    for capture in captured.captures(SCRATCH):
        capture()
    assert captured.read(np.arange(1, ROWS)).tobytes() == states.tobytes()
    for members in (3, 8, 1, 3):
        reads, writes = RNG.permutation(np.arange(1, ROWS))[: 2 * members].reshape(2, members)
        x = RNG.standard_normal((members, 1), np.float32)
        run = Run(reads, writes, np.ones(members, np.int32), (x,))
        expected = np.tanh(x @ WEIGHTS["w"] + plain.read(reads) @ WEIGHTS["u"]) @ WEIGHTS["v"]
        for backend in (captured, plain):
            np.testing.assert_allclose(backend.run(run).outputs[0], expected, rtol=TOLERANCE, atol=TOLERANCE)
    same(captured.read(np.arange(ROWS)), plain.read(np.arange(ROWS)), provider)


@pytest.mark.parametrize(("cell", "operator"), [("lstm", "LSTM"), ("gru", "GRU"), ("peephole", "Scan")])
def test_what_a_cuda_graph_would_replay_wrongly_is_refused(cell: str, operator: str, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(hidden=8, cell=cell)
    (tmp_path / "model").write_bytes(characters_model(checkpoint, Options(target="cuda")).SerializeToString())
    with pytest.raises(
        ModelError, match=rf"model: --cuda-graphs: {operator} cannot be recorded, it .*--single-step"
    ):
        open_model(tmp_path / "model", "cpu", 1, cuda=CudaOptions(graphs=True))


def single_step(folder: Path, kind: str) -> Path:
    """A graph of one step in a file."""
    graph = characters_model(
        tiny_checkpoint(hidden=8, layers=2, **KINDS[kind]), Options(target="cuda", single_step=True)
    )
    (folder / "single").write_bytes(graph.SerializeToString())
    return folder / "single"


@pytest.mark.parametrize("kind", ["lstm", "gru", "projected", "gru-zoneout"])
def test_one_step_a_run_gives_what_the_rows_form_gives_in_long_runs(
    kind: str, tmp_path: Path, provider: Provider
) -> None:
    checkpoint = tiny_checkpoint(hidden=8, layers=2, **KINDS[kind])
    (tmp_path / "rows").write_bytes(characters_model(checkpoint).SerializeToString())
    session, contract = open_model(tmp_path / "rows", "cpu", 1)
    plain = OnnxBackend(session, contract, RowStore(contract, ROWS))
    session, contract = open_model(single_step(tmp_path, kind), provider, 1, cuda=CudaOptions(graphs=True))
    backend = ArenaBackend(session, contract, ArenaStore(contract, ROWS, SCRATCH, provider))
    for record in backend.captures(4):
        record()
    tokens = RNG.integers(len(SYMBOLS), size=(3, 5))
    expected = plain.run(run_of([0, 0, 0], [1, 2, 3], [5] * 3, tokens)).outputs[0]

    for step in range(5):
        run = run_of([1, 2, 3] if step else [0] * 3, [1, 2, 3], [1] * 3, tokens[:, step : step + 1])
        same(backend.run(run).outputs[0][:, 0], expected[:, step], "cuda")  # another order of sums

    same(backend.read(np.arange(4)), plain.read(np.arange(4)), "cuda")
    assert set(backend._buckets) == {(1, 1), (2, 1), (4, 1)}


@pytest.mark.parametrize("provider", ["cpu"], indirect=True)
def test_a_step_gives_the_same_bits_in_any_batch(tmp_path: Path, provider: Provider) -> None:
    backend = arena_backend(single_step(tmp_path, "lstm"), provider)
    backend.write(np.arange(1, ROWS), RNG.uniform(-1, 1, (ROWS - 1, 32)).astype(np.float32))
    tokens = RNG.integers(len(SYMBOLS), size=(8, 1))
    together = backend.run(run_of([*range(1, 9)], [*range(11, 19)], [1] * 8, tokens)).outputs[0]
    for members in ([2], [0, 7, 3], [6, 5, 4, 3, 2]):
        reads, writes = [1 + k for k in members], [21 + k for k in members]
        alone = backend.run(run_of(reads, writes, [1] * len(members), tokens[members])).outputs[0]
        assert alone.tobytes() == together[members].tobytes()
        written = backend.read(np.array(writes))
        assert written.tobytes() == backend.read(np.array(writes) - 10).tobytes()


def test_what_is_exported_as_one_step_is_recorded_and_has_buffers_for_one_step_alone(
    tmp_path: Path, provider: Provider
) -> None:
    session, contract = open_model(
        single_step(tmp_path, "projected"), provider, 1, cuda=CudaOptions(graphs=True)
    )
    backend = ArenaBackend(session, contract, ArenaStore(contract, ROWS, SCRATCH, provider))
    backend.warm_up(6)
    for capture in backend.captures(6):
        capture()
    numbers = {
        size: bucket._graph.get_run_config_entry("gpu_graph_id") for size, bucket in backend._buckets.items()
    }
    assert numbers == {(1, 1): "1", (2, 1): "2", (4, 1): "3", (8, 1): "4"}


def test_no_buffers_are_for_more_steps_than_the_graph_was_verified_for(
    arena_file: Path, provider: Provider
) -> None:
    session, contract = open_model(arena_file, provider, 1)
    three = contract.model_copy(update={"max_steps": 3})
    backend = ArenaBackend(session, three, ArenaStore(three, ROWS, SCRATCH, provider))
    assert backend.run(run_of([0, 0], [1, 2], [3, 2])).outputs[0].shape[1] == 3
    assert set(backend._buckets) == {(2, 3)}


@pytest.mark.parametrize("cell", ["peephole", "coupled", "gru", "rnn"])
def test_every_recurrence_runs_as_it_does_in_the_rows_form(
    cell: str, tmp_path: Path, provider: Provider
) -> None:
    """Some are Scans; others are operators on CUDA and Scans on the CPU, so that they sum in another order."""
    checkpoint = tiny_checkpoint(hidden=8, layers=2, cell=cell)
    for name, options in (("rows", Options()), ("arena", Options(target="cuda"))):
        (tmp_path / name).write_bytes(characters_model(checkpoint, options).SerializeToString())
    session, contract = open_model(tmp_path / "rows", "cpu", 1)
    plain, backend = (
        OnnxBackend(session, contract, RowStore(contract, ROWS)),
        arena_backend(tmp_path / "arena", provider),
    )
    run = run_of([0, 0, 0], [1, 2, 3], [3, 1, 2])

    given, expected = backend.run(run), plain.run(run)

    same(given.outputs[0][0], expected.outputs[0][0], "cuda")
    same(backend.read(np.arange(4)), plain.read(np.arange(4)), "cuda")


def test_what_gates_do_is_an_answer_of_each_member(tmp_path: Path, provider: Provider) -> None:
    checkpoint = tiny_checkpoint(hidden=8)
    for name, target in (("rows", "cpu"), ("arena", "cuda")):
        options = Options(target=target, observe=True)
        (tmp_path / name).write_bytes(characters_model(checkpoint, options).SerializeToString())
    session, contract = open_model(tmp_path / "rows", "cpu", 1)
    plain, backend = (
        OnnxBackend(session, contract, RowStore(contract, ROWS)),
        arena_backend(tmp_path / "arena", provider),
    )
    run = run_of([0, 0, 0], [1, 2, 3], [3, 1, 2])

    given, expected = backend.run(run), plain.run(run)

    assert given.observed is not None
    assert expected.observed is not None
    same(given.observed, expected.observed, provider)


@pytest.mark.parametrize("graph", [gather_graph, scatter_graph])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_the_graphs_written_by_hand_are_onnx(graph: Callable[[str, int], bytes], dtype: str) -> None:
    model = onnx.ModelProto.FromString(graph(dtype, 300))
    onnx.checker.check_model(model, full_check=True)
    assert model.SerializeToString(deterministic=True)
    assert (model.ir_version, model.opset_import[0].version) == (10, 20)
    assert model.graph.input[0].type.tensor_type.shape.dim[1].dim_value == 300
