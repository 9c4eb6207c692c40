"""Does a graph of the arena form say of the rows it wrote which are finite? The service commits no others."""

import numpy as np

from carousel.contract import Contract
from export.invariance import drawn
from export.packing import packed
from export.report import Check
from export.runtime import OnnxStep

ROWS = 32


def finiteness_checks(run: OnnxStep, contract: Contract, rng: np.random.Generator) -> tuple[Check, ...]:
    """Step rows of which half hold NaN or infinity somewhere, and count those of which the graph says the wrong thing."""
    if contract.arena is None:
        return ()
    ports, size = contract.inputs, contract.state_size
    inputs_BT = packed(ports, {port.name: drawn(port, ROWS, rng)[:, None] for port in ports})
    rows_BS = rng.uniform(-1, 1, (ROWS, size)).astype(np.float32)
    for row in range(0, ROWS, 2):
        rows_BS[row, rng.integers(size)] = rng.choice([np.nan, np.inf, -np.inf])
    told, after_BS = run.told_finite(inputs_BT, np.ones(ROWS, np.int32), rows_BS)
    wrong = told != np.isfinite(after_BS).all(axis=1)
    return (Check("rows it calls finite or not, wrongly", int(np.count_nonzero(wrong)), 0),)
