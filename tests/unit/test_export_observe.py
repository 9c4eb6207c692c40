"""`--observe`: what the gates did comes out beside the answers, and changes none of them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from export.characters import characters_contract
from export.door import export_checkpoint
from export.file import read_model
from export.options import Options
from export.runtime import OnnxStep
from tests.models import SYMBOLS, tiny_checkpoint

OBSERVED = Options(observe=True)


def test_the_numbers_are_the_means_of_the_gates_over_each_row_s_own_steps(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(hidden=12)
    file = export_checkpoint(checkpoint, tmp_path / "seen", options=OBSERVED).file
    rng = np.random.default_rng(0)
    tokens, lengths = rng.integers(len(SYMBOLS), size=(3, 9)), np.array([9, 2, 5], np.int32)
    rows = rng.uniform(-1, 1, (3, 24)).astype(np.float32)

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (observed,) = session.run(["observed"], {"tokens": tokens, "lengths": lengths, "state": rows})

    contract = read_model(file).contract
    assert contract.observed is not None
    for row in range(3):
        found = dict(zip(contract.observed.statistics, observed[row], strict=True))
        expected = by_hand(checkpoint.model, tokens[row, : lengths[row]], rows[row])
        assert found.keys() == {f"layer0.{name}" for name in expected}
        for name, value in expected.items():
            assert found[f"layer0.{name}"] == pytest.approx(value, rel=1e-5), name


@torch.no_grad()
def by_hand(model: Any, tokens: np.ndarray, row: np.ndarray) -> dict[str, float]:
    """The statistics of one sequence, from the gates of every step."""
    (cell,) = model.stack.cells
    state = type(cell.initial_state(1))(*torch.from_numpy(row)[None].chunk(2, dim=1))
    steps: list[dict[str, float]] = []
    for token in tokens:
        gates = cell.gates(cell.inputs(model.embedding.weight[token][None]), state.hidden, state)
        _, state = cell.update(gates, state)
        seen = {}
        for name in ("input", "forget", "output"):
            values = getattr(gates, name).numpy()
            seen[f"{name}.mean"] = values.mean()
            seen[f"{name}.saturated"] = ((values < 0.1) | (values > 0.9)).mean()
        for name, part in state._asdict().items():
            seen[f"{name}.norm"] = np.linalg.norm(part.numpy())
        steps.append(seen)
    return {name: float(np.mean([step[name] for step in steps])) for name in steps[0]}


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (
            {"cell": "gru"},
            ["reset.mean", "reset.saturated", "update.mean", "update.saturated", "hidden.norm"],
        ),
        ({"cell": "rnn"}, ["hidden.norm"]),
        (
            {"cell": "peephole", "zoneout": {"cell": 0.3}},
            ["input.mean", "input.saturated", "forget.mean", "forget.saturated", "hidden.norm", "cell.norm"],
        ),
    ],
)
def test_every_layer_of_every_cell_tells_what_it_has(settings: dict[str, Any], names: list[str]) -> None:
    observed = characters_contract(tiny_checkpoint(layers=2, **settings), OBSERVED).observed

    assert observed is not None
    assert list(observed.statistics) == [f"layer{layer}.{name}" for layer in (0, 1) for name in names]


def test_a_model_that_is_observed_keeps_its_signature_and_its_promise(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(cell="highway-time")
    seen = export_checkpoint(checkpoint, tmp_path / "text", options=OBSERVED)
    plain = export_checkpoint(checkpoint, tmp_path / "text")

    assert seen.contract.signature == plain.contract.signature
    assert seen.contract.invariant
    tokens, ones, rows = np.zeros((2, 1), np.int64), np.ones(2, np.int32), np.zeros((2, 32), np.float32)
    with_it, without = (
        OnnxStep(read_model(one.file).model, one.contract)(tokens, ones, rows) for one in (seen, plain)
    )
    assert with_it[0].tobytes() == without[0].tobytes()
    assert with_it[1].tobytes() == without[1].tobytes()
