"""Does the graph compute what the model computed in PyTorch?"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from carousel.contract import Contract
from export.report import Check
from export.runtime import Lengths, OnnxStep, Tokens, TorchStep, Values, one_torch_thread
from model.tasks.characters import CharacterModel

# Both sides round to float32 (6e-8) in sums of hundreds of terms, in other orders, and carry the result on.
TOLERANCE = 1e-5
# A recurrence may amplify rounding. Then torch is as far from the exact numbers as the graph, and two float32
# programs can be this many times as far from each other; beyond the limit the comparison would prove nothing.
ROUNDINGS = 4
LIMIT = 1e-2

# B and T of the random batches, each run from zero and from random states.
SHAPES = ((1, 1), (1, 29), (5, 1), (4, 23), (16, 9))
OWN_TEXTS = 4
OWN_TEXT_STEPS = 64

_KINDS = ("outputs", "states")


class Case(NamedTuple):
    """One batch: tokens `[B, T]`, lengths `[B]`, rows at the start `[B, S]`."""

    tokens_BT: Tokens
    lengths_B: Lengths
    rows_BS: NDArray[np.float32]


class Distances(NamedTuple):
    """Worst errors between three runs of the same cases, each `[2]`: outputs, states."""

    onnx_torch: NDArray[np.float64]
    onnx_double: NDArray[np.float64]
    torch_double: NDArray[np.float64]


def parity_checks(
    run: OnnxStep, model: CharacterModel, contract: Contract, rng: np.random.Generator
) -> tuple[Check, ...]:
    """Compare outputs and states with PyTorch in float32, then tell how far both are from float64."""
    single = TorchStep(model, contract.segments, torch.float32)
    double = TorchStep(model, contract.segments, torch.float64)
    with one_torch_thread():
        cases = {
            "random tokens": list(random_cases(contract, rng)),
            "text the model writes": [own_text_case(single, contract, rng)],
            f"{contract.max_steps} steps": [long_case(contract, rng)],
        }
        found = {name: distances(run, single, double, these) for name, these in cases.items()}
    judged = [check for name, these in found.items() for check in _judged(name, these)]
    return (*judged, *_told(list(found.values())))


def random_cases(contract: Contract, rng: np.random.Generator) -> Iterator[Case]:
    """Random tokens, ragged, from zero and from random states; the first row always has the full length."""
    for batch, steps in SHAPES:
        for spread in (0.0, 1.0):
            tokens = rng.integers(_symbols(contract), size=(batch, steps), dtype=np.int64)
            lengths = rng.integers(1, steps + 1, batch, dtype=np.int32)
            lengths[0] = steps
            yield Case(tokens, lengths, _rows(contract, batch, spread, rng))


def own_text_case(step: TorchStep, contract: Contract, rng: np.random.Generator) -> Case:
    """What the model itself writes: as close to its data as can be had without the data."""
    rows, ones = _rows(contract, OWN_TEXTS, 0.0, rng), np.ones(OWN_TEXTS, dtype=np.int32)
    tokens = [rng.integers(_symbols(contract), size=(OWN_TEXTS, 1), dtype=np.int64)]
    carried: Values = rows
    for _ in range(OWN_TEXT_STEPS - 1):
        outputs, carried = step(tokens[-1], ones, carried)
        # The largest of the logits and Gumbel noise is a draw from their softmax.
        tokens.append((outputs + rng.gumbel(size=outputs.shape)).argmax(axis=-1))
    lengths = np.full(OWN_TEXTS, OWN_TEXT_STEPS, dtype=np.int32)
    return Case(np.concatenate(tokens, axis=1), lengths, rows)


def long_case(contract: Contract, rng: np.random.Generator) -> Case:
    """One row of as many steps as the contract allows."""
    tokens = rng.integers(_symbols(contract), size=(1, contract.max_steps), dtype=np.int64)
    return Case(tokens, np.array([contract.max_steps], dtype=np.int32), _rows(contract, 1, 0.0, rng))


def distances(run: OnnxStep, single: TorchStep, double: TorchStep, cases: list[Case]) -> Distances:
    """Run all cases on the graph, on torch in float32 and in float64; outputs count within the lengths only."""
    found = []
    for case in cases:
        real_BT = np.arange(case.tokens_BT.shape[1]) < case.lengths_B[:, None]
        ours, theirs, exact = (
            (outputs_BTV[real_BT], rows_BS)
            for outputs_BTV, rows_BS in (run(*case), single(*case), double(*case))
        )
        pairs = ((ours, theirs), (ours, exact), (theirs, exact))
        found.append([list(map(worst_error, *pair)) for pair in pairs])
    return Distances(*np.max(found, axis=0))


def worst_error(actual: Values, expected: Values) -> float:
    """Largest difference, relative to numbers above 1, absolute below; infinite where anything is not finite."""
    if not (np.isfinite(actual).all() and np.isfinite(expected).all()):
        return float("inf")
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    return float((np.abs(actual - expected) / np.maximum(1, np.abs(expected))).max(initial=0))


def allowed_error(rounding: float) -> float:
    """How far the graph may be from torch where torch itself is `rounding` away from the exact numbers."""
    return min(max(TOLERANCE, ROUNDINGS * rounding), LIMIT)


def _judged(name: str, found: Distances) -> Iterator[Check]:
    for kind, error, rounding in zip(_KINDS, found.onnx_torch, found.torch_double, strict=True):
        allowed = allowed_error(float(rounding))
        yield Check(f"torch, {name}: {kind}", float(error), allowed, f"rounding in torch: {rounding:.1e}")


def _told(found: list[Distances]) -> Iterator[Check]:
    worst = np.max([these.onnx_double for these in found], axis=0)
    for kind, error in zip(_KINDS, worst, strict=True):
        yield Check(f"torch in float64: {kind}", float(error), None)


def _rows(contract: Contract, batch: int, spread: float, rng: np.random.Generator) -> NDArray[np.float32]:
    return (spread * rng.uniform(-1, 1, (batch, contract.state_size))).astype(np.float32)


def _symbols(contract: Contract) -> int:
    return len(contract.inputs[0].vocabulary or ())
