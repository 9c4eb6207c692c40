"""On CUDA, every recurrence computes its equations: in long runs, a step at a time, and replayed from recordings.

And what a run leaves on the device. On a GPU the figures are the same, what is counted is not (`tests/gpu.py`).
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from carousel.contract import Contract
from export.door import write_whole
from export.options import Options
from export.packing import packed
from export.tasks import step_model
from export.whole import Whole
from export.whole_checks import random_forest
from model.checkpoint import Checkpoint
from model.tasks.characters import CharacterModel
from model.tasks.task import TaskModel
from service.arena_backend import ArenaBackend, power_of_two
from service.arena_bucket import ALIGNED
from service.arena_store import ArenaStore
from service.backend import Run
from service.opening import open_model
from service.placement import operators_of
from service.runtime import PLAIN, CudaOptions, Provider
from service.whole_graph import WholeGraph
from service.whole_inputs import WholeInputs
from tests.gpu import (
    BYTES_ON_DEVICE,
    BYTES_TO_DEVICE,
    BYTES_TO_HOST,
    COUNTED,
    ON_CUDA,
    REPLAYS,
    TO_DEVICE,
    TO_HOST,
    WAITS,
    counted,
)
from tests.kinds import KINDS, TOLERANCE, by_the_equations
from tests.models import EMBEDDING, SYMBOLS, tiny_checkpoint
from tests.parity.test_export_numbers import checkpoint as forecast
from tests.parity.test_export_whole import CELLS, both_ways, tree

pytestmark = ON_CUDA

ARENA = Options(target="cuda")
SINGLE = Options(target="cuda", single_step=True)
FORMS = {
    "long runs": (ARENA, PLAIN),
    "single steps": (SINGLE, PLAIN),
    "recorded": (SINGLE, CudaOptions(graphs=True)),
}
FORECASTS: dict[str, dict[str, Any]] = {
    "forecast": {},
    "forecast-changes": {"changes": True},
    "forecast-recursive": {"recursive": True},
    "forecast-recursive-changes": {"recursive": True, "changes": True, "past": []},
    "forecast-values-alone": {"past": [], "known": []},
}
BATCH, ROWS, SCRATCH = 5, 24, 8
HALF = 5e-3
"""float16 has 11 bits, and errors of weights, sums and activations add up over layers and a dozen steps."""


class Opened(NamedTuple):
    """A model, and what runs it."""

    model: TaskModel
    contract: Contract
    backend: ArenaBackend
    on_cpu: list[str]
    """Operators that are not on the device."""


def opened(
    file: Path,
    options: Options = ARENA,
    cuda: CudaOptions = PLAIN,
    hidden: int = EMBEDDING,
    **settings: Any,
) -> Opened:
    return opened_on("cuda", file, tiny_checkpoint(hidden=hidden, layers=2, **settings), options, cuda)


def opened_on(
    provider: Provider, file: Path, checkpoint: Checkpoint, options: Options, cuda: CudaOptions = PLAIN
) -> Opened:
    file.write_bytes(step_model(checkpoint, options).SerializeToString())
    session, contract = open_model(file, provider, 1, cuda=cuda)
    backend = ArenaBackend(session, contract, ArenaStore(contract, ROWS, SCRATCH, provider))
    backend.warm_up(SCRATCH)
    for record in backend.captures(SCRATCH) if cuda.graphs else ():
        record()
    return Opened(checkpoint.model, contract, backend, operators_of(session, "CPUExecutionProvider"))


def some_sequences(contract: Contract) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens `[B, T]`, lengths `[B]` and rows `[B, S]` to begin with."""
    rng = np.random.default_rng(0)
    lengths = np.array([7, 1, 12, 4, 9])
    rows = rng.uniform(-0.5, 0.5, (BATCH, contract.state_size)).astype(np.float32)
    return rng.integers(len(SYMBOLS), size=(BATCH, max(lengths))), lengths, rows


def advance(
    one: Opened, arrays: tuple[np.ndarray, ...], lengths: np.ndarray, rows: np.ndarray, most: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Outputs of each sequence and the rows after it; ragged runs of at most so many steps, with two rows a member.

    The inputs are `[B, T, ...]` each; numbers of all outputs are side by side.
    """
    backend, outputs = one.backend, one.contract.outputs
    here, there, done = np.arange(1, BATCH + 1), np.arange(BATCH + 1, 2 * BATCH + 1), np.zeros(BATCH, int)
    answers: list[list[np.ndarray]] = [[] for _ in lengths]
    backend.write(here, rows)
    while (done < lengths).any():
        members = np.flatnonzero(done < lengths)
        counts = np.minimum(lengths - done, most)[members]
        inputs = tuple(np.zeros((len(members), max(counts), *a.shape[2:]), a.dtype) for a in arrays)
        for into, array in zip(inputs, arrays, strict=True):
            for row, member, count in zip(into, members, counts, strict=True):
                row[:count] = array[member, done[member] : done[member] + count]
        result = backend.run(Run(here[members], there[members], counts.astype(np.int32), inputs))
        assert result.finite is None
        answered = packed(outputs, dict(zip((port.name for port in outputs), result.outputs, strict=True)))
        for member, count, numbers in zip(members, counts, answered, strict=True):
            answers[member].append(numbers[:count])
        here[members], there[members] = there[members], here[members].copy()
        done[members] += counts
    return [np.concatenate(parts) for parts in answers], backend.read(here)


def hold_against_the_equations(one: Opened, most: int, tolerance: float) -> float:
    """Returns the largest error."""
    assert isinstance(one.model, CharacterModel)
    tokens, lengths, rows = some_sequences(one.contract)
    answers, after = advance(one, (tokens,), lengths, rows, most)
    errors = []
    for k, length in enumerate(lengths):
        logits, row = by_the_equations(one.model, tokens[k, :length], rows[k])
        for found, expected in ((answers[k], logits), (after[k], row)):
            np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
            errors.append(np.abs(found - expected).max())
    return max(errors)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_recurrence_computes_its_equations_with_every_operator_on_the_device(
    kind: str, form: str, tmp_path: Path
) -> None:
    options, cuda = FORMS[form]
    options = options._replace(observe="observed" in kind)
    one = opened(tmp_path / "model", options, cuda, **KINDS[kind])
    assert one.on_cpu == []
    hold_against_the_equations(one, min(5, one.contract.max_steps), TOLERANCE)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_float16_stays_near_the_equations_and_is_not_float32(kind: str, form: str, tmp_path: Path) -> None:
    options, cuda = FORMS[form]
    options = options._replace(precision="fp16", observe="observed" in kind)
    one = opened(tmp_path / "model", options, cuda, **KINDS[kind])
    assert one.on_cpu == []
    assert hold_against_the_equations(one, min(5, one.contract.max_steps), HALF) > TOLERANCE


def test_products_are_of_float32_unless_tf32_is_asked_for(tmp_path: Path) -> None:
    """TF32 rounds factors of 24 bits to 11, which is an error of 2^-11 in each."""
    exact = opened(tmp_path / "exact", SINGLE, hidden=64, cell="lstm")
    coarse = opened(tmp_path / "coarse", SINGLE, CudaOptions(tf32=True), hidden=64, cell="lstm")
    hold_against_the_equations(exact, 1, 1e-6)
    assert hold_against_the_equations(coarse, 1, 1e-2) > TOLERANCE


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", FORECASTS)
def test_forecasts_are_what_they_are_on_the_cpu_with_every_operator_on_the_device(
    kind: str, form: str, tmp_path: Path
) -> None:
    (options, cuda), made = FORMS[form], forecast(**FORECASTS[kind])
    one = opened_on("cuda", tmp_path / "model", made, options, cuda)
    other = opened_on("cpu", tmp_path / "model", made, options)
    assert one.on_cpu == []
    _, lengths, rows = some_sequences(one.contract)
    rows[::2] = 0  # some begin, others go on
    rng = np.random.default_rng(6)
    arrays = tuple(
        rng.uniform(8, 12, (BATCH, max(lengths), *port.shape)).astype(np.float32)
        for port in one.contract.inputs
    )
    most = min(5, one.contract.max_steps)
    (given, after), (expected, after_there) = (
        advance(it, arrays, lengths, rows, most) for it in (one, other)
    )
    for found, wanted in zip([*given, after], [*expected, after_there], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=TOLERANCE, atol=TOLERANCE)
    assert np.ptp(np.concatenate(expected)) > 0.01


@pytest.mark.parametrize("cell", CELLS)
def test_readers_of_both_directions_give_what_they_give_on_the_cpu(cell: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    arrays = {"tokens": rng.integers(7, size=(4, 9)), "lengths": np.array([9, 1, 4, 8], np.int32)}
    given, expected = on_both(both_ways(CELLS[cell]), arrays, {"batch": 4, "time": 9}, tmp_path)
    for row, length in enumerate(arrays["lengths"]):
        np.testing.assert_allclose(
            given[row, :length], expected[row, :length], rtol=TOLERANCE, atol=TOLERANCE
        )


def test_the_ends_of_both_directions_are_what_they_are_on_the_cpu(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    arrays = {"tokens": rng.integers(7, size=(3, 6)), "lengths": np.array([2, 6, 1], np.int32)}
    given, expected = on_both(both_ways(each=False), arrays, {"batch": 3, "time": 6}, tmp_path)
    np.testing.assert_allclose(given, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_trees_give_what_they_give_on_the_cpu(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    arrays = {"x": rng.normal(size=(40, 5)).astype(np.float32), "children": random_forest(40, 3, rng)}
    given, expected = on_both(tree(), arrays, {"node": 40}, tmp_path)
    np.testing.assert_allclose(given, expected, rtol=TOLERANCE, atol=TOLERANCE)


def on_both(
    whole: Whole, arrays: dict[str, np.ndarray], sizes: dict[str, int], folder: Path
) -> tuple[np.ndarray, np.ndarray]:
    """What one file answers on CUDA, and on the CPU."""
    file = write_whole(whole, folder / "whole" / "1", ARENA).file
    providers: tuple[Provider, Provider] = ("cuda", "cpu")
    graphs = (WholeGraph(*open_model(file, provider, 1), "whole/1") for provider in providers)
    given, expected = (graph.run(WholeInputs(arrays, sizes)).outputs[0] for graph in graphs)
    assert np.ptp(expected) > 0.01
    return given, expected


@COUNTED
@pytest.mark.parametrize("hidden", [8, 96])
@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("form", FORMS)
def test_a_run_copies_inputs_and_rows_to_the_device_and_answers_back(
    form: str, batch: int, hidden: int, tmp_path: Path
) -> None:
    """So no state leaves the device, and the arena, which is larger than all else, is not copied on it either.

    The operator LSTM copies the lengths, one copy a layer.
    """
    one = opened(tmp_path / "model", *FORMS[form], hidden=hidden, cell="lstm")
    lengths_copies = 2 if form == "long runs" else 0
    rows = np.arange(1, batch + 1)
    for steps in (1, 2)[: one.contract.max_steps]:
        lengths = np.full(batch, steps, np.int32)
        run = Run(rows, rows + batch, lengths, (np.zeros((batch, steps), np.int64),))
        one.backend.run(run)  # makes the buffers of this size
        with counted() as counts:
            one.backend.run(run)
        assert counts[TO_HOST] == 1
        assert counts[TO_DEVICE] == len(one.contract.inputs) + 1 + lengths_copies
        members = power_of_two(batch)
        assert counts[BYTES_TO_DEVICE] == 8 * members * (steps + 2) + 4 * members * lengths_copies
        logits, finite = 4 * members * steps * len(SYMBOLS), 4 * members
        assert logits + finite <= counts[BYTES_TO_HOST] < logits + finite + 2 * ALIGNED
        assert counts[BYTES_ON_DEVICE] < 4 * one.contract.state_size * (ROWS + SCRATCH)
        assert counts[REPLAYS] == (form == "recorded")


@COUNTED
@pytest.mark.parametrize("kind", [*KINDS, *FORECASTS])
def test_a_recorded_run_of_every_kind_copies_its_inputs_and_rows_and_nothing_else(
    kind: str, tmp_path: Path
) -> None:
    """ONNX Runtime waits twice for a copy to the device: until it is staged, and until it is there."""
    made = (
        forecast(**FORECASTS[kind])
        if kind in FORECASTS
        else tiny_checkpoint(hidden=EMBEDDING, layers=2, **KINDS[kind])
    )
    options, cuda = FORMS["recorded"]
    observed = options._replace(observe="observed" in kind)
    one = opened_on("cuda", tmp_path / "model", made, observed, cuda)
    inputs = tuple(np.zeros((3, 1, *port.shape), port.dtype) for port in one.contract.inputs)
    with counted() as counts:
        one.backend.run(Run(np.arange(1, 4), np.arange(4, 7), np.ones(3, np.int32), inputs))
    assert counts[TO_DEVICE] == len(inputs) + 1
    assert (counts[TO_HOST], counts[REPLAYS]) == (1, 1)
    assert counts[WAITS] == 2 * counts[TO_DEVICE] + 1 + counts[TO_HOST]


@pytest.mark.parametrize("form", FORMS)
def test_a_device_that_is_full_says_so_and_has_room_for_less(form: str, tmp_path: Path) -> None:
    options, cuda = FORMS[form]
    one = opened(tmp_path / "model", options, cuda, hidden=512, cell="lstm")
    too_many = (1 << 40) // (4 * one.contract.state_size)
    with pytest.raises(MemoryError):
        ArenaStore(one.contract, too_many, SCRATCH, "cuda")
    store = ArenaStore(one.contract, ROWS, SCRATCH, "cuda")
    states = np.random.default_rng(0).standard_normal((4, one.contract.state_size), np.float32)
    store.write(np.arange(1, 5), states)
    assert store.read(np.arange(1, 5)).tobytes() == states.tobytes()
