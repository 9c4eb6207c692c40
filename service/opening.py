"""Opens the files of the repository, and holds each graph against its contract and the place where it is to run."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from carousel.contract import METADATA_KEY, Contract, ContractError
from carousel.errors import CarouselError
from carousel.graph import TensorType, disagreements
from service.kept import WINDOW_BYTES, step_bytes_of
from service.placement import PlacementError, check_form, check_nodes, check_recording
from service.repository import ModelError
from service.runtime import PLAIN, CudaOptions, Provider, make_session
from service.whole_graph import WholeGraph

if TYPE_CHECKING:
    import onnxruntime

PRIMING_FILE = "priming.onnx"
"""Beside the graph whose sessions it begins."""
_ORT_DTYPES = {"float": "float32", "double": "float64"}


def open_model(
    path: Path,
    provider: Provider,
    threads: int,
    kinds: Sequence[str] = ("step", "whole"),
    cuda: CudaOptions = PLAIN,
) -> "tuple[onnxruntime.InferenceSession, Contract]":
    """Open a model and hold its graph against its contract.

    Raises:
        ModelError: the file is damaged or foreign, or the graph is not what the contract says, or of another kind.
        RuntimeUnavailableError: the provider is not there.
    """
    session = _open(path, provider, threads, cuda._replace(graphs=False))
    contract = _contract_of(session, path)
    if contract.kind not in kinds:
        raise ModelError(f"{path}: expected a graph of kind {' or '.join(kinds)}, got {contract.kind}")
    if contract.kind == "step" and (size := step_bytes_of(contract)) > WINDOW_BYTES:
        raise ModelError(f"{path}: one step answers {size} bytes, a session keeps at most {WINDOW_BYTES}")
    try:
        check_form(contract, provider)
        if provider == "cuda":
            check_nodes(session, cuda)
        recorded = cuda.graphs and contract.kind == "step"
        if recorded:
            check_recording(session)
    except PlacementError as error:
        raise ModelError(f"{path}: {error}") from error
    if recorded:
        # Whether it can be is known from a first session, whose memory the second one has.
        del session
        session = _open(path, provider, threads, cuda)
    return session, contract


def _open(path: Path, provider: Provider, threads: int, cuda: CudaOptions) -> "onnxruntime.InferenceSession":
    try:
        return make_session(path, provider, threads, cuda)
    except CarouselError:
        raise
    except Exception as error:  # onnxruntime's exceptions have no common base but this
        raise ModelError(f"{path}: onnxruntime cannot load it: {' '.join(str(error).split())}") from error


def open_priming(
    path: Path, contract: Contract, provider: Provider, threads: int, cuda: CudaOptions = PLAIN
) -> WholeGraph | None:
    """Open the graph beside a step graph that its sessions begin with; None: there is none.

    Raises:
        ModelError: it begins sessions of another model, or cannot be opened, or is missing and needed.
        RuntimeUnavailableError: the provider is not there.
    """
    beside = path.with_name(PRIMING_FILE)
    if not beside.exists():
        if len(contract.planes) > 1:
            raise ModelError(f"{path}: expected {PRIMING_FILE} beside it, which writes its read-only planes")
        return None
    session, priming = open_model(beside, provider, threads, ("priming",), cuda)
    made = {port.name: (port.dtype, port.shape, port.axes) for port in priming.outputs}
    wanted = {plane.input: (plane.dtype, (plane.size,), ("batch",)) for plane in contract.planes}
    if priming.primes != contract.signature or made != wanted:
        raise ModelError(
            f"{beside}: expected the graph that begins sessions of {path.name}, got another one's"
        )
    return WholeGraph(session, priming, f"{path.parent.parent.name}/{path.parent.name}")


def _contract_of(session: "onnxruntime.InferenceSession", path: Path) -> Contract:
    """What the file promises, held against its graph."""
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise ModelError(f"{path}: no contract in the file; export it with `carousel export`")
    try:
        contract = Contract.from_json(text)
    except ContractError as error:
        raise ModelError(f"{path}: {error}") from error
    problems = disagreements(
        contract, _graph_types(session.get_inputs()), _graph_types(session.get_outputs())
    )
    if problems:
        raise ModelError(f"{path}: contract and graph disagree: {problems[0]}")
    if contract.kind != "step":
        _check_axes(contract, path)
    return contract


def _check_axes(contract: Contract, path: Path) -> None:
    """Inputs must say how large everything is."""
    known = {axis for port in contract.inputs for axis in port.axes}
    needed = {axis for port in contract.outputs for axis in port.axes}
    needed |= {"batch", "time"} if contract.lengths else set()
    if needed - known:
        raise ModelError(f"{path}: expected an input with the axes {', '.join(sorted(needed - known))}")


def _graph_types(nodes: "Sequence[onnxruntime.NodeArg]") -> dict[str, TensorType]:
    types = {}
    for node in nodes:
        name = node.type.removeprefix("tensor(").removesuffix(")")
        shape = tuple(size if isinstance(size, int) else str(size) for size in node.shape)
        types[node.name] = TensorType(_ORT_DTYPES.get(name, name), shape)
    return types
