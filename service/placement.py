"""Where a model may run: which form which provider takes, and that ONNX Runtime has put every node where it belongs.

What its CUDA provider cannot run goes to the CPU without an error. Every such node costs copies between the device and
the host in each run, and can forbid CUDA graphs.
"""

from typing import TYPE_CHECKING

import structlog

from carousel.contract import Contract
from carousel.errors import CarouselError
from service.runtime import CudaOptions, Provider

if TYPE_CHECKING:
    import onnxruntime

_CPU = "CPUExecutionProvider"
_NOT_RECORDED = {
    **dict.fromkeys(("LSTM", "GRU", "RNN"), "copies lengths from the host in every run"),
    **dict.fromkeys(("Scan", "Loop", "If"), "is driven from the host"),
    "GatherND": "copies sizes from the host in every run",
}
"""Operators that a CUDA graph would replay wrongly or not at all: a replay copies what is at that address by then, in
releases of ONNX Runtime that do not keep it (`CudnnRnnBase::ComputeInternal`; pull requests 32120 and 32121)."""

_log = structlog.get_logger(__name__)


class PlacementError(CarouselError):
    """The model cannot run where it was asked to; says why."""


def operators_of(session: "onnxruntime.InferenceSession", provider: str = "") -> list[str]:
    """The operators that run with a provider, or with any, each once, by name.

    The session must have been made to record the assignment (`session.record_ep_graph_assignment_info`).
    """
    found = session.get_provider_graph_assignment_info()
    return sorted(
        {node.op_type for part in found if provider in ("", part.ep_name) for node in part.get_nodes()}
    )


def check_form(contract: Contract, provider: Provider) -> None:
    """Hold that the provider takes a step graph of this form.

    Raises:
        PlacementError: it does not.
    """
    if len(contract.planes) > 1 and provider == "cuda":
        raise PlacementError("a graph with read-only planes is served on the CPU alone")
    if contract.kind == "step" and contract.form == "rows" and provider == "cuda":
        raise PlacementError(
            "expected the arena form for --provider cuda, got rows; export it with `carousel export --for cuda`"
        )
    if contract.form == "arena" and len(contract.planes) > 1:
        raise PlacementError(
            "a graph with read-only planes cannot be served in the arena form; export it for the CPU"
        )


def check_nodes(session: "onnxruntime.InferenceSession", cuda: CudaOptions) -> None:
    """Hold that every node runs on the device, or warn if some need not.

    Raises:
        PlacementError: something does not.
    """
    operators = operators_of(session, _CPU)
    if operators and not cuda.allow_cpu_nodes:
        raise PlacementError(
            f"expected every operator on CUDA, got on the CPU: {', '.join(operators)}; "
            "export it again with `carousel export --for cuda`, or serve it so with --allow-cpu-nodes"
        )
    if operators:
        _log.warning("nodes_on_cpu", operators=operators)


def check_recording(session: "onnxruntime.InferenceSession") -> None:
    """Hold that runs of one step can be recorded as CUDA graphs.

    Raises:
        PlacementError: they cannot; says because of which operator.
    """
    found = operators_of(session)
    for operator, why_not in _NOT_RECORDED.items():
        if operator in found:
            raise PlacementError(
                f"--cuda-graphs: {operator} cannot be recorded, it {why_not}; "
                "export it again with `carousel export --for cuda --single-step`"
            )
