"""The exported graph against things that nobody here wrote: torch.nn.LSTM and the evaluator of the onnx package."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from torch.nn import functional

from model.tasks.characters import CharacterModel
from tests.models import SYMBOLS, tiny_characters, tiny_checkpoint

SIZES = [(16, 1), (32, 2), (128, 1), (64, 3)]
# Rounding of float32 sums of up to 128 terms, carried over a few dozen steps.
TOLERANCE = 2e-6


class Exported(NamedTuple):
    """A model, its file and a session on it."""

    model: CharacterModel
    file: Path
    session: onnxruntime.InferenceSession
    state_size: int


class Batch(NamedTuple):
    """What goes into one run."""

    tokens: NDArray[np.int64]
    lengths: NDArray[np.int32]
    state: NDArray[np.float32]


@pytest.fixture(scope="module", params=SIZES, ids=lambda sizes: f"H{sizes[0]}L{sizes[1]}")
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    hidden, layers = request.param
    file = tiny_characters(tmp_path_factory.mktemp("models"), hidden=hidden, layers=layers, seed=hidden)
    model = tiny_checkpoint(hidden=hidden, layers=layers, seed=hidden).model
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return Exported(model, file, session, 2 * hidden * layers)


def random_batch(exported: Exported, size: int, steps: int, *, ragged: bool = False) -> Batch:
    rng = np.random.default_rng(size * 1000 + steps)
    lengths = rng.integers(1, steps + 1, size) if ragged else np.full(size, steps)
    state = rng.uniform(-1, 1, (size, exported.state_size)).astype(np.float32)
    return Batch(rng.integers(len(SYMBOLS), size=(size, steps)), lengths.astype(np.int32), state)


def run(exported: Exported, batch: Batch) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    logits, state = exported.session.run(["logits", "state_out"], batch._asdict())
    return logits, state


def library_lstm(model: CharacterModel) -> torch.nn.LSTM:
    """torch.nn.LSTM with the weights of our layers; its second bias is zero, as ours does not exist."""
    cells = list(model.stack.cells)
    lstm = torch.nn.LSTM(
        model.embedding.embedding_dim, model.head.in_features, num_layers=len(cells), batch_first=True
    )
    with torch.no_grad():
        for layer, cell in enumerate(cells):
            getattr(lstm, f"weight_ih_l{layer}").copy_(cell.weight_x)
            getattr(lstm, f"weight_hh_l{layer}").copy_(cell.weight_h)
            getattr(lstm, f"bias_ih_l{layer}").copy_(cell.bias)
            getattr(lstm, f"bias_hh_l{layer}").zero_()
    return lstm


@torch.no_grad()
def library_run(model: CharacterModel, batch: Batch) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The same through the library, ragged batches as packed sequences."""
    lstm = library_lstm(model)
    parts = torch.from_numpy(batch.state).split(lstm.hidden_size, dim=1)
    start = (torch.stack(parts[::2]).contiguous(), torch.stack(parts[1::2]).contiguous())
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        functional.embedding(torch.from_numpy(batch.tokens), model.embedding.weight),
        torch.from_numpy(batch.lengths).long(),
        batch_first=True,
        enforce_sorted=False,
    )
    outputs, (hidden, cell) = lstm(packed, start)
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(
        outputs, batch_first=True, total_length=batch.tokens.shape[1]
    )
    logits = functional.linear(padded, model.head.weight, model.head.bias)
    state = torch.stack([hidden, cell], dim=1).flatten(
        0, 1
    )  # [2L, B, H]: hidden and cell of each layer in turn
    return logits.numpy(), state.transpose(0, 1).flatten(1).numpy()


def assert_close(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(actual, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(("size", "steps"), [(1, 1), (1, 40), (7, 1), (5, 13)])
def test_outputs_and_states_are_those_of_torch_nn_lstm(exported: Exported, size: int, steps: int) -> None:
    batch = random_batch(exported, size, steps)

    for actual, expected in zip(run(exported, batch), library_run(exported.model, batch), strict=True):
        assert_close(actual, expected)


def test_ragged_rows_are_those_of_packed_sequences(exported: Exported) -> None:
    batch = random_batch(exported, 9, 21, ragged=True)
    real = np.arange(21) < batch.lengths[:, None]
    (logits, state), (expected_logits, expected_state) = (
        run(exported, batch),
        library_run(exported.model, batch),
    )

    assert len(set(batch.lengths)) > 3
    assert_close(logits[real], expected_logits[real])
    assert_close(state, expected_state)


def test_a_full_batch_is_that_of_the_reference_evaluator_of_onnx(exported: Exported) -> None:
    batch = random_batch(exported, 3, 8)
    reference = ReferenceEvaluator(onnx.load(exported.file))

    for actual, expected in zip(
        run(exported, batch), reference.run(["logits", "state_out"], batch._asdict()), strict=True
    ):
        assert_close(actual, expected)


def test_a_ragged_row_ends_where_it_ends_whatever_the_padding_holds(exported: Exported) -> None:
    batch = random_batch(exported, 4, 10)._replace(lengths=np.array([1, 4, 9, 10], dtype=np.int32))
    other = batch.tokens.copy()
    for row, length in enumerate(batch.lengths):
        other[row, length:] = (other[row, length:] + 7) % len(SYMBOLS)
    (logits, state), (other_logits, other_state) = (
        run(exported, batch),
        run(exported, batch._replace(tokens=other)),
    )

    assert state.tobytes() == other_state.tobytes()
    for row, length in enumerate(batch.lengths):
        assert logits[row, :length].tobytes() == other_logits[row, :length].tobytes()
        alone = Batch(batch.tokens[[row], :length], batch.lengths[[row]], batch.state[[row]])
        assert run(exported, alone)[1][0].tobytes() == state[row].tobytes()


def test_padding_a_batch_further_changes_no_bit(exported: Exported) -> None:
    batch = random_batch(exported, 4, 6, ragged=True)
    longer = batch._replace(tokens=np.pad(batch.tokens, ((0, 0), (0, 5))))
    (logits, state), (longer_logits, longer_state) = run(exported, batch), run(exported, longer)
    real = np.arange(6) < batch.lengths[:, None]

    assert state.tobytes() == longer_state.tobytes()
    assert logits[real].tobytes() == longer_logits[:, :6][real].tobytes()


def test_zero_is_where_a_torch_sequence_starts(exported: Exported) -> None:
    batch = random_batch(exported, 1, 12)
    zero = batch._replace(state=np.zeros_like(batch.state))
    with torch.no_grad():
        expected, _ = exported.model(torch.from_numpy(batch.tokens), exported.model.stack.initial_state(1))

    assert_close(run(exported, zero)[0], expected.numpy())
