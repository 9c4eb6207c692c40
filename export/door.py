"""The only way from a checkpoint to a model file: build, verify, write."""

from dataclasses import dataclass
from pathlib import Path

import onnx
from torch import nn

from carousel.contract import Contract
from export.characters import characters_model
from export.errors import ExportError
from export.metadata import contract_of, set_contract
from export.report import Verification
from export.repository import new_version, place
from export.verify import verify
from model.checkpoint import Checkpoint


class VerificationError(ExportError):
    """The graph is not what was trained; nothing was written."""

    def __init__(self, verification: Verification) -> None:
        worst = verification.failures[0]
        detail = f" ({worst.detail})" if worst.detail else ""
        super().__init__(
            f"nothing written: {worst.check}: {worst.measured:g}, allowed {worst.allowed:g}{detail}"
        )
        self.verification = verification


@dataclass(frozen=True)
class Exported:
    """A model that was written."""

    file: Path
    contract: Contract
    verification: Verification


def export_checkpoint(checkpoint: Checkpoint, folder: Path, version: int | None = None) -> Exported:
    """Write a checkpoint as a new version of a model.

    Args:
        checkpoint: The trained model and where it comes from.
        folder: The model's folder; its last part is the model's name.
        version: None takes one more than the newest.

    Raises:
        VerificationError: a check did not pass; it holds the whole table.
        ExportError: the name or version cannot be used, or there is no graph for such a checkpoint.
    """
    target = new_version(folder, version)
    return write_verified(characters_model(checkpoint), checkpoint.model, target)


def write_verified(model: onnx.ModelProto, reference: nn.Module, target: Path) -> Exported:
    """Write a step graph if it computes what the PyTorch model computes.

    Args:
        model: The graph with its contract, whose `invariant` is set here to what was measured.
        reference: The model it was made from.
        target: The version's folder, which does not exist yet.

    Raises:
        VerificationError: a check did not pass; it holds the whole table.
    """
    drafted = contract_of(model)
    verification = verify(model, drafted, reference)
    if verification.failures:
        raise VerificationError(verification)
    contract = drafted.model_copy(update={"invariant": verification.invariant})
    set_contract(model, contract)
    return Exported(place(model.SerializeToString(), target), contract, verification)
