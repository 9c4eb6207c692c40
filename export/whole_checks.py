"""What is measured on a whole-input graph: against PyTorch, and against itself in other batches and other forests.

Axes: T time, B batch, N nodes, K children.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from carousel.contract import Contract
from export.invariance import compare_bits, drawn
from export.parity import allowed_error, worst_error
from export.report import Check
from export.runtime import Inputs, Values, one_torch_thread
from export.whole_runs import Children, OnnxWhole

LENGTHS = ((1,), (29,), (1, 1, 1, 1, 1), (23, 7, 1, 16), tuple(range(1, 17)))
"""Steps of the sequences of the batches."""
ROWS, STEPS = 64, 12
TREES, NODES = 12, 16


class Case(NamedTuple):
    """Some sequences, or one forest."""

    inputs: list[Inputs]
    children_NK: Children | None = None


class Alone(Protocol):
    """A network in PyTorch, which knows no batches."""

    def sequence(self, inputs_T: Inputs) -> Values:
        """Output of one sequence."""

    def forest(self, inputs_N: Inputs, children_NK: Children) -> Values:
        """Outputs of all nodes of a forest."""


def whole_parity(
    run: OnnxWhole, single: Alone, double: Alone, contract: Contract, rng: np.random.Generator
) -> tuple[Check, ...]:
    """Compare with PyTorch in float32, and tell how far the graph is from PyTorch in float64."""
    cases = {
        "random sequences" if contract.lengths else "random trees": list(_cases(contract, rng)),
        f"{contract.max_steps} {'steps' if contract.lengths else 'nodes'}": [_long_case(contract, rng)],
    }
    judged, exact = [], 0.0
    for name, these in cases.items():
        with one_torch_thread():
            ours, theirs, true = (
                [values for case in these for values in _played(side, case)] for side in (run, single, double)
            )
        rounding = max(map(worst_error, theirs, true))
        error = max(map(worst_error, ours, theirs))
        judged.append(
            Check(f"torch, {name}", error, allowed_error(rounding), f"rounding in torch: {rounding:.1e}")
        )
        exact = max(exact, *map(worst_error, ours, true))
    return (*judged, Check("torch in float64", exact, None))


def whole_invariance(run: OnnxWhole, contract: Contract, rng: np.random.Generator) -> tuple[Check, ...]:
    """Compare, bit for bit, what is computed together with what is computed alone."""
    if not contract.lengths:
        return _forests(run, contract, rng)
    port, longest = contract.inputs[0], contract.max_steps
    rows = [drawn(port, int(steps), rng) for steps in rng.integers(1, min(STEPS, longest) + 1, ROWS)]
    alone = [run.sequence(row) for row in rows]
    checks = [compare_bits("ragged batch = each row alone", alone, _padded(run, rows))]
    filling = drawn(port, min(3 * STEPS, longest), rng)
    other = _padded(run, rows, filling)
    checks.append(compare_bits("longer padding, other numbers in it = each row alone", alone, other))
    some = rng.permutation(ROWS)[: ROWS // 3]
    few = _padded(run, [rows[row] for row in some])
    return (*checks, compare_bits("some rows in any order = each row alone", [alone[k] for k in some], few))


def _forests(run: OnnxWhole, contract: Contract, rng: np.random.Generator) -> tuple[Check, ...]:
    port, K = contract.inputs[0], contract.inputs[1].shape[0]
    trees = [random_forest(int(nodes), K, rng) for nodes in rng.integers(1, NODES, TREES)]
    inputs = [drawn(port, len(tree), rng) for tree in trees]
    alone = [run.forest(*one) for one in zip(inputs, trees, strict=True)]
    order = rng.permutation(TREES)
    together = run.forest(np.concatenate([inputs[k] for k in order]), joined([trees[k] for k in order]))
    ends = np.cumsum([len(trees[k]) for k in order])[:-1]
    return (
        compare_bits("trees of a forest = each alone", [alone[k] for k in order], np.split(together, ends)),
    )


def random_forest(nodes: int, most_children: int, rng: np.random.Generator) -> Children:
    """Some trees `[N, K]`, children before parents, in random columns."""
    children_NK = np.full((nodes, most_children), -1, np.int32)
    roots: list[int] = []
    for node in range(nodes):
        count = int(rng.integers(min(most_children, len(roots)) + 1))
        taken = [roots.pop(int(rng.integers(len(roots)))) for _ in range(count)]
        children_NK[node, rng.permutation(most_children)[:count]] = taken
        roots.append(node)
    return children_NK


def joined(forests: list[Children]) -> Children:
    """One forest of several, the nodes of each after those of the one before."""
    starts = np.cumsum([0, *map(len, forests)])[:-1]
    moved = [np.where(one < 0, -1, one + start) for one, start in zip(forests, starts, strict=True)]
    return np.concatenate(moved).astype(np.int32)


def _cases(contract: Contract, rng: np.random.Generator) -> Iterator[Case]:
    port = contract.inputs[0]
    if contract.lengths:
        for lengths in LENGTHS:
            yield Case([drawn(port, min(steps, contract.max_steps), rng) for steps in lengths])
        return
    K = contract.inputs[1].shape[0]
    chain = np.full((NODES, K), -1, np.int32)
    chain[1:, 0] = np.arange(NODES - 1)
    for children in (*(random_forest(nodes, K, rng) for nodes in (1, 2, NODES, 3 * NODES)), chain):
        yield Case([drawn(port, len(children), rng)], children)


def _long_case(contract: Contract, rng: np.random.Generator) -> Case:
    inputs = [drawn(contract.inputs[0], contract.max_steps, rng)]
    if contract.lengths:
        return Case(inputs)
    return Case(inputs, random_forest(contract.max_steps, contract.inputs[1].shape[0], rng))


def _played(side: OnnxWhole | Alone, case: Case) -> list[Values]:
    if case.children_NK is not None:
        return [side.forest(case.inputs[0], case.children_NK)]
    if isinstance(side, OnnxWhole):
        return _padded(side, case.inputs)
    return [side.sequence(row) for row in case.inputs]


def _padded(run: OnnxWhole, rows: list[Inputs], filling: Inputs | None = None) -> list[Values]:
    """Outputs of each row from one batch; `filling` is what lies beyond their ends, and says where the batch ends."""
    lengths_B = np.array([len(row) for row in rows], np.int32)
    longest = lengths_B.max() if filling is None else len(filling)
    inputs_BT = np.zeros((len(rows), longest, *rows[0].shape[1:]), rows[0].dtype)
    if filling is not None:
        inputs_BT[:] = filling
    for slot, row in enumerate(rows):
        inputs_BT[slot, : len(row)] = row
    outputs = run.sequences(inputs_BT, lengths_B)
    return [out[:length] if run.each else out for out, length in zip(outputs, lengths_B, strict=True)]
