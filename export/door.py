"""The only way from a checkpoint to a model file: build, verify, write."""

from dataclasses import dataclass
from pathlib import Path

import onnx

from carousel.contract import Contract
from export.characters import characters_model
from export.errors import ExportError
from export.metadata import contract_of, set_contract
from export.options import PLAIN, Options
from export.precision import both_precisions, refuse_what_cannot_be
from export.report import Verification
from export.repository import new_version, place
from export.validation import held_out
from export.verify import verify, verify_rounded
from model.checkpoint import Checkpoint
from model.tasks.characters import CharacterModel


class VerificationError(ExportError):
    """The graph is not what was trained; nothing was written."""

    def __init__(self, verification: Verification) -> None:
        super().__init__(f"nothing written: {verification.failures[0]}")
        self.verification = verification


@dataclass(frozen=True)
class Exported:
    """A model that was written."""

    file: Path
    contract: Contract
    verification: Verification


def export_checkpoint(
    checkpoint: Checkpoint, folder: Path, version: int | None = None, options: Options = PLAIN
) -> Exported:
    """Write a checkpoint as a new version of a model.

    Args:
        checkpoint: The trained model and where it comes from.
        folder: The model's folder; its last part is the model's name.
        version: None takes one more than the newest.
        options: How to write it.

    Raises:
        VerificationError: a check did not pass; it holds the whole table.
        ExportError: the name or version cannot be used, or there is no graph for such a checkpoint and such options.
    """
    target = new_version(folder, version)
    refuse_what_cannot_be(options)
    if options.precision == "fp32":
        return write_verified(characters_model(checkpoint, options), checkpoint.model, target)
    tokens_N = held_out(checkpoint)
    exact, rounded = both_precisions(checkpoint, options)
    plain = verify(exact, contract_of(exact), checkpoint.model)
    if plain.failures:
        raise VerificationError(plain)
    return _write(rounded, verify_rounded(rounded, contract_of(rounded), exact, tokens_N), target)


def write_verified(model: onnx.ModelProto, reference: CharacterModel, target: Path) -> Exported:
    """Write a step graph if it computes what the PyTorch model computes.

    Args:
        model: The graph with its contract, whose `invariant` is set here to what was measured.
        reference: The model it was made from.
        target: The version's folder, which does not exist yet.

    Raises:
        VerificationError: a check did not pass; it holds the whole table.
    """
    return _write(model, verify(model, contract_of(model), reference), target)


def _write(model: onnx.ModelProto, verification: Verification, target: Path) -> Exported:
    if verification.failures:
        raise VerificationError(verification)
    contract = contract_of(model).model_copy(update={"invariant": verification.invariant})
    set_contract(model, contract)
    return Exported(place(model.SerializeToString(), target), contract, verification)
