"""Does a result depend on how the work was cut up? Whole = chunks = ragged batches = single rows, bit for bit."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carousel.contract import Contract, Port
from export.packing import Ports, packed
from export.report import Check
from export.runtime import Inputs, Lengths, OnnxStep, Values

Plan = Callable[[Lengths], list[tuple[int, int]]]
"""Chooses the next batch: from the steps each row still has to go, pairs of row and steps to take, at least one."""

# As many rows as a service puts in a batch, lengths from a single step to more than any kernel unrolls.
ROWS = 64
STEPS = 12
LONG_CHUNK = 1000
SHUFFLES = 3


@dataclass(frozen=True)
class Work:
    """Sessions with the inputs they will be given."""

    inputs: list[Inputs]
    """A row's inputs `[T, ...]`."""
    rows_RS: NDArray[np.float32]
    """Where each row starts `[R, S]`."""


def invariance_checks(run: OnnxStep, contract: Contract, rng: np.random.Generator) -> tuple[Check, ...]:
    """Play the same work along different plans and count the numbers that differ in any bit."""
    ports, row_size = contract.inputs, sum(plane.size for plane in contract.planes)
    work = make_work(rng.integers(1, STEPS + 1, ROWS), ports, row_size, rng)
    plans: dict[str, Plan] = {
        "ragged batch = each row alone": together,
        "single steps in batches = each row alone": a_step_each,
        "single steps, one row at a time = each row alone": one_step_of_one,
    }
    plans |= {
        f"random batches and chunks ({k + 1}) = each row alone": shuffled(rng, STEPS) for k in range(SHUFFLES)
    }
    alone = play(run, work, one_after_another)
    checks = [compare_bits(name, alone, play(run, work, plan)) for name, plan in plans.items()]
    if contract.max_steps == 1:  # then a run cannot be cut
        return tuple(checks)
    long = make_work(np.array([contract.max_steps]), ports, row_size, rng)
    whole, chunks = play(run, long, together), play(run, long, shuffled(rng, LONG_CHUNK))
    return (*checks, compare_bits(f"{contract.max_steps} steps in chunks = in one run", whole, chunks))


def make_work(steps: NDArray[np.integer], ports: Ports, row_size: int, rng: np.random.Generator) -> Work:
    """Random inputs and random starts; `steps [R]` says how many steps each row has."""
    inputs = [
        packed(ports, {port.name: drawn(port, int(count), rng)[None] for port in ports})[0] for count in steps
    ]
    return Work(inputs, rng.uniform(-1, 1, (len(inputs), row_size)).astype(np.float32))


def play(run: OnnxStep, work: Work, plan: Plan) -> list[Values]:
    """Do the whole work along a plan, padding each batch to its longest chunk.

    Returns:
        The outputs of every row `[T, V]`, then all rows at their end `[R, S]`.
    """
    rows_RS, taken = work.rows_RS.copy(), np.zeros(len(work.inputs), dtype=np.int32)
    outputs: list[list[Values]] = [[] for _ in work.inputs]
    steps = np.array([len(inputs) for inputs in work.inputs], dtype=np.int32)
    while (taken < steps).any():
        batch = plan(steps - taken)
        rows, lengths = (np.array(column, dtype=np.int32) for column in zip(*batch, strict=True))
        first = work.inputs[0]
        inputs_BT = np.zeros((len(batch), lengths.max(), *first.shape[1:]), dtype=first.dtype)
        for slot, (row, length) in enumerate(batch):
            inputs_BT[slot, :length] = work.inputs[row][taken[row] : taken[row] + length]
        outputs_BTV, rows_RS[rows] = run(inputs_BT, lengths, rows_RS[rows])
        for slot, (row, length) in enumerate(batch):
            outputs[row].append(outputs_BTV[slot, :length])
        taken[rows] += lengths
    return [*(np.concatenate(parts) for parts in outputs), rows_RS]


def together(left: Lengths) -> list[tuple[int, int]]:
    """All rows in one ragged batch."""
    return [(int(row), int(left[row])) for row in np.flatnonzero(left)]


def one_after_another(left: Lengths) -> list[tuple[int, int]]:
    """One row, all its steps."""
    return together(left)[:1]


def a_step_each(left: Lengths) -> list[tuple[int, int]]:
    """One step of every row that has steps to go."""
    return [(row, 1) for row, _ in together(left)]


def one_step_of_one(left: Lengths) -> list[tuple[int, int]]:
    """One step of one row."""
    return a_step_each(left)[:1]


def shuffled(rng: np.random.Generator, longest: int) -> Plan:
    """Some of the rows in any order, each with a chunk of any length up to `longest`: what a service does."""

    def plan(left: Lengths) -> list[tuple[int, int]]:
        ready = rng.permutation(np.flatnonzero(left))
        some = ready[: rng.integers(1, len(ready) + 1)]
        return [(int(row), int(rng.integers(1, min(left[row], longest) + 1))) for row in some]

    return plan


def drawn(port: Port, steps: int, rng: np.random.Generator) -> Inputs:
    """Random numbers for a port, `[steps, *shape]`."""
    if port.vocabulary is not None and "float" not in port.dtype:
        return rng.integers(len(port.vocabulary), size=(steps, *port.shape)).astype(port.dtype)
    return rng.uniform(-1, 1, (steps, *port.shape)).astype(port.dtype)


def compare_bits(name: str, expected: list[Values], actual: list[Values]) -> Check:
    """Count the numbers that differ in any bit."""
    pairs = [(_bits(e), _bits(a)) for e, a in zip(expected, actual, strict=True)]
    differing = sum(int((e != a).sum()) for e, a in pairs)
    return Check(name, differing, 0, f"of {sum(e.size for e, _ in pairs)} numbers")


def _bits(values: Values) -> NDArray[np.uint32]:
    return values.astype(np.float32, copy=False).view(np.uint32)
