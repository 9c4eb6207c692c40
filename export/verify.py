"""Everything that is measured on a graph before it may become a file, and what can be repeated from the file."""

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from carousel.contract import Contract
from export.errors import ExportError
from export.external import fetch_weights
from export.file import ModelFile
from export.finite import finiteness_checks
from export.invariance import invariance_checks
from export.metadata import contract_of
from export.parity import parity_checks
from export.report import Check, Verification
from export.runtime import OnnxStep
from export.structure import structure_checks
from export.timing import time_ratio
from export.validation import metric_check
from export.whole import Whole
from export.whole_checks import whole_invariance, whole_parity
from export.whole_runs import OnnxWhole, TorchWhole
from model.tasks.step_model import StepModel

_SEED = 0
_SPEED_ROWS = 16


def verify(model: onnx.ModelProto, contract: Contract, reference: StepModel) -> Verification:
    """Measure a step graph: alone, against the PyTorch model it was made from, and against itself.

    Args:
        model: The graph, weights inside.
        contract: What it is to promise.
        reference: The model, in evaluation as its graph is.
    """
    structure = structure_checks(model, contract)
    if not all(check.passed for check in structure):
        return Verification(structure, ())
    run, rng = OnnxStep(model, contract), np.random.default_rng(_SEED)
    parity = parity_checks(run, reference, contract, rng)
    finite = finiteness_checks(run, contract, rng)
    return Verification((*structure, *parity, *finite), invariance_checks(run, contract, rng))


def verify_whole(model: onnx.ModelProto, contract: Contract, whole: Whole) -> Verification:
    """Measure a whole-input graph: alone, against the PyTorch network it was made from, and against itself.

    Args:
        model: The graph, weights inside.
        contract: What it is to promise.
        whole: The network.
    """
    structure = structure_checks(model, contract)
    if not all(check.passed for check in structure):
        return Verification(structure, ())
    run, rng = OnnxWhole(model, contract), np.random.default_rng(_SEED)
    single, double = (TorchWhole(whole, dtype) for dtype in (torch.float32, torch.float64))
    parity = whole_parity(run, single, double, contract, rng)
    return Verification((*structure, *parity), whole_invariance(run, contract, rng))


def verify_rounded(
    model: onnx.ModelProto, contract: Contract, exact: onnx.ModelProto, tokens_N: NDArray[np.int64]
) -> Verification:
    """Measure a graph of lower precision: against the one in float32, on the model's own data, and against itself.

    Args:
        model: The graph, weights inside.
        contract: What it is to promise.
        exact: The graph of the same model in float32, verified.
        tokens_N: The held-out text.
    """
    structure = structure_checks(model, contract)
    if not all(check.passed for check in structure):
        return Verification(structure, ())
    run, before = OnnxStep(model, contract), OnnxStep(exact, contract_of(exact))
    invariance = (
        () if contract.batch_dependent else invariance_checks(run, contract, np.random.default_rng(_SEED))
    )
    checks = (
        *structure,
        *finiteness_checks(run, contract, np.random.default_rng(_SEED)),
        metric_check(before, run, contract, tokens_N),
        _speed(run, before, contract, tokens_N),
    )
    return Verification(checks, invariance)


def _speed(run: OnnxStep, before: OnnxStep, contract: Contract, tokens_N: NDArray[np.int64]) -> Check:
    """Time of a step of 16 sessions; told, as it is another one on another machine."""
    tokens_BT, ones = tokens_N[:_SPEED_ROWS, None], np.ones(_SPEED_ROWS, np.int32)[: len(tokens_N)]
    rows_BS = np.zeros((len(tokens_BT), contract.state_size), np.float32)
    _, ratio = time_ratio(lambda: run(tokens_BT, ones, rows_BS), lambda: before(tokens_BT, ones, rows_BS))
    return Check(f"time of a step of {len(tokens_BT)} sessions, as a ratio to float32", ratio, None)


def verify_file(found: ModelFile) -> Verification:
    """Repeat what needs no PyTorch model: structure, numbers of the weights, and the promise of the same bits.

    Args:
        found: A file whose graph and contract agree.

    Returns:
        What was measured. Where the contract says `invariant`, the comparisons are among the required checks.
    """
    model, contract = found.model, found.contract
    fetch_weights(model, found.path.parent)
    structure = structure_checks(model, contract)
    if not all(check.passed for check in structure):
        return Verification(structure, ())
    rng = np.random.default_rng(_SEED)
    try:
        if contract.kind == "step":
            run = OnnxStep(model, contract)
            structure += finiteness_checks(run, contract, rng)
            compared = invariance_checks(run, contract, rng)
        else:
            compared = whole_invariance(OnnxWhole(model, contract), contract, rng)
    except Exception as error:  # onnxruntime's exceptions have no common base but this
        line = " ".join(str(error).split())
        raise ExportError(f"{found.path}: onnxruntime cannot run it: {line}") from error
    if contract.invariant:
        return Verification((*structure, *compared), compared)
    return Verification((*structure, *(_told(check) for check in compared)), compared)


def _told(check: Check) -> Check:
    return Check(check.check, check.measured, None, check.detail)
