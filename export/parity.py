"""Does the graph compute what the model computed in PyTorch?"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from carousel.contract import Contract
from export.report import Check
from export.runtime import Inputs, Lengths, OnnxStep, Step, TorchStep, Values, one_torch_thread
from model.tasks.numbers import NumberModel
from model.tasks.step_model import StepModel

Draw = Callable[[int, int], Inputs]

# Both sides round to float32 (6e-8) in sums of hundreds of terms, in other orders, and carry the result on.
TOLERANCE = 1e-5
# A recurrence may amplify rounding. Then torch is as far from the exact numbers as the graph, and two float32
# programs can be this many times as far from each other; beyond the limit the comparison would prove nothing.
ROUNDINGS = 4
LIMIT = 1e-2

CARRIED_STEPS = 4096
"""What a graph of one step is made to run, one after another, instead of its longest run."""

# B and T of the random batches, each run from zero and from random states.
SHAPES = ((1, 1), (1, 29), (5, 1), (4, 23), (16, 9))
OWN_TEXTS = 4
OWN_TEXT_STEPS = 64

_KINDS = ("outputs", "states")


class Case(NamedTuple):
    """One batch: tokens `[B, T]` or numbers `[B, T, n]`, lengths `[B]`, rows at the start `[B, S]`."""

    inputs_BT: Inputs
    lengths_B: Lengths
    rows_BS: NDArray[np.float32]


class Distances(NamedTuple):
    """Worst errors between three runs of the same cases, each `[2]`: outputs, states."""

    onnx_torch: NDArray[np.float64]
    onnx_double: NDArray[np.float64]
    torch_double: NDArray[np.float64]


def parity_checks(
    run: OnnxStep, model: StepModel, contract: Contract, rng: np.random.Generator
) -> tuple[Check, ...]:
    """Compare outputs and states with PyTorch in float32, then tell how far both are from float64."""
    single = TorchStep(model, contract.segments, torch.float32)
    double = TorchStep(model, contract.segments, torch.float64)
    with one_torch_thread():
        draw, numbers = drawing(model, contract, rng), isinstance(model, NumberModel)
        cases = {
            f"random {'numbers' if numbers else 'tokens'}": list(random_cases(contract, draw, rng)),
            f"{_longest(contract)} steps": [long_case(contract, draw, rng)],
        }
        if not numbers:
            cases["text the model writes"] = [
                own_text_case(single, contract, _rows(contract, OWN_TEXTS, 0.0, rng), rng)
            ]
        found = {name: distances(run, single, double, these) for name, these in cases.items()}
    return table(found)


def table(found: Mapping[str, Distances]) -> tuple[Check, ...]:
    """Judge how far the graph is from PyTorch in float32 in each kind of cases, and tell how far from float64 in all."""
    judged = [check for name, these in found.items() for check in _judged(name, these)]
    return (*judged, *_told(list(found.values())))


def drawing(model: StepModel, contract: Contract, rng: np.random.Generator) -> Draw:
    """How to draw inputs for B rows of T steps: tokens, or numbers about as large as those that were learnt from."""

    def tokens(batch: int, steps: int) -> Inputs:
        return rng.integers(_symbols(contract), size=(batch, steps), dtype=np.int64)

    def numbers(batch: int, steps: int) -> Inputs:
        assert isinstance(model, NumberModel)
        center_I, scale_I = model.center_in.numpy(), model.scale_in.numpy()
        size = (batch, steps, len(center_I))
        return (center_I + scale_I * rng.standard_normal(size)).astype(np.float32)

    return numbers if isinstance(model, NumberModel) else tokens


def random_cases(contract: Contract, draw: Draw, rng: np.random.Generator) -> Iterator[Case]:
    """Random inputs, ragged, from zero and from random states; the first row always has the full length."""
    for batch, steps in SHAPES:
        for spread in (0.0, 1.0):
            inputs = draw(batch, steps)
            lengths = rng.integers(1, steps + 1, batch, dtype=np.int32)
            lengths[0] = steps
            yield Case(inputs, lengths, _rows(contract, batch, spread, rng))


def own_text_case(
    step: Step, contract: Contract, rows_BS: NDArray[np.float32], rng: np.random.Generator
) -> Case:
    """What the model itself writes from some rows on: as close to its data as can be had without the data."""
    ones = np.ones(len(rows_BS), dtype=np.int32)
    tokens = [rng.integers(_symbols(contract), size=(len(rows_BS), 1), dtype=np.int64)]
    carried: Values = rows_BS
    for _ in range(OWN_TEXT_STEPS - 1):
        outputs, carried = step(tokens[-1], ones, carried)
        # The largest of the logits and Gumbel noise is a draw from their softmax.
        tokens.append((outputs + rng.gumbel(size=outputs.shape)).argmax(axis=-1))
    lengths = np.full(len(rows_BS), OWN_TEXT_STEPS, dtype=np.int32)
    return Case(np.concatenate(tokens, axis=1), lengths, rows_BS)


def long_case(contract: Contract, draw: Draw, rng: np.random.Generator) -> Case:
    """One row of as many steps as the contract allows in a run, or of many runs of one."""
    steps = _longest(contract)
    return Case(draw(1, steps), np.array([steps], dtype=np.int32), _rows(contract, 1, 0.0, rng))


def _longest(contract: Contract) -> int:
    return CARRIED_STEPS if contract.max_steps == 1 else contract.max_steps


def distances(run: Step, single: Step, double: Step, cases: list[Case]) -> Distances:
    """Run all cases on the graph, on torch in float32 and in float64; outputs count within the lengths only."""
    found = []
    for case in cases:
        real_BT = np.arange(case.inputs_BT.shape[1]) < case.lengths_B[:, None]
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
