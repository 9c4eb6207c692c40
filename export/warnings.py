"""What a person should know about a model before serving it. Needs no torch and runs nothing."""

from collections.abc import Iterator

from export.cuda import fallbacks
from export.file import ModelFile


def warnings(found: ModelFile) -> list[str]:
    """What is allowed and still a surprise, a line each; an empty list is good."""
    return list(_warnings(found))


def _warnings(found: ModelFile) -> Iterator[str]:
    contract = found.contract
    for reason in fallbacks(found.model):
        yield f"on CUDA this would run on the CPU, with copies there and back: {reason}"
    if found.operators["Scan"] and contract.runs_on == "cpu" and not fallbacks(found.model):
        yield "on CUDA a Scan is driven from the host, step by step"
    if contract.batch_dependent:
        yield "a session's results depend on its batch-mates by more than rounding"
    elif not contract.invariant:
        yield "results may differ in their last bits between batches and chunkings"
    others = [entry.domain for entry in found.model.opset_import if entry.domain]
    if others:
        yield f"operators of {', '.join(others)}: ONNX Runtime alone runs them"
