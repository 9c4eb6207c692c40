"""The only way from a checkpoint to a model file: build, verify, write."""

from dataclasses import dataclass
from pathlib import Path

import onnx

from carousel.contract import Contract
from export.decoder import decoder_model
from export.encoder_decoder import Pair
from export.errors import ExportError
from export.external import LARGEST_BYTES, to_files
from export.forests import whole_of
from export.metadata import contract_of, set_contract
from export.options import PLAIN, Options
from export.pair_checks import verify_pair
from export.precision import both_precisions, refuse_all_but_plain, refuse_what_cannot_be
from export.priming import priming_model
from export.report import Verification
from export.repository import MODEL_FILE, PRIMING_FILE, new_version, place
from export.sequences import pair_of
from export.step import stepping
from export.tasks import step_model
from export.validation import held_out
from export.verify import verify, verify_rounded, verify_whole
from export.whole import Whole, whole_model
from model.checkpoint import Checkpoint
from model.tasks.step_model import StepModel
from model.tasks.translate import Translator
from model.tasks.trees import TreeModel


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
    match checkpoint.model:
        case TreeModel() as model:
            return write_whole(whole_of(checkpoint, model), target, options)
        case Translator() as model:
            return write_pair(pair_of(checkpoint, model), target, options)
    if options.precision == "fp32":
        return write_verified(step_model(checkpoint, options), stepping(checkpoint), target)
    tokens_N = held_out(checkpoint)
    exact, rounded = both_precisions(checkpoint, options)
    plain = verify(exact, contract_of(exact), stepping(checkpoint))
    if plain.failures:
        raise VerificationError(plain)
    return _write(rounded, verify_rounded(rounded, contract_of(rounded), exact, tokens_N), target)


def write_verified(
    model: onnx.ModelProto, reference: StepModel, target: Path, largest_bytes: int = LARGEST_BYTES
) -> Exported:
    """Write a step graph if it computes what the PyTorch model computes.

    Args:
        model: The graph with its contract, whose `invariant` is set here to what was measured.
        reference: The model it was made from.
        target: The version's folder, which does not exist yet.
        largest_bytes: Weights beyond this lie in a file of their own.

    Raises:
        VerificationError: a check did not pass; it holds the whole table.
    """
    return _write(model, verify(model, contract_of(model), reference), target, largest_bytes)


def write_whole(whole: Whole, target: Path, options: Options = PLAIN) -> Exported:
    """Write a whole-input graph if it computes what the PyTorch network computes.

    Args:
        whole: The network, and what comes before and after it.
        target: The version's folder, which does not exist yet.
        options: Where it is to run.

    Raises:
        VerificationError: a check did not pass; it holds the whole table.
        ExportError: there is no graph for such a network and such options.
    """
    refuse_all_but_plain(options._replace(target=PLAIN.target))
    model = whole_model(whole, options)
    return _write(model, verify_whole(model, contract_of(model), whole), target)


def write_pair(pair: Pair, target: Path, options: Options = PLAIN) -> Exported:
    """Write decoder and encoder, each a graph, if they compute what the PyTorch model computes.

    Args:
        pair: The model and what its contracts say.
        target: The version's folder, which does not exist yet: it gets `MODEL_FILE` and `PRIMING_FILE`.
        options: There is a choice of none yet.

    Raises:
        VerificationError: a check did not pass; it holds the whole table of both.
        ExportError: there is no graph for such a model and such options.
    """
    refuse_all_but_plain(options)
    decoder, priming = decoder_model(pair), priming_model(pair)
    steps, starts = verify_pair(decoder, priming, pair)
    both = steps.joined(starts, "priming")
    if both.failures:
        raise VerificationError(both)
    _promise(decoder, steps)
    _promise(priming, starts)
    files = {**to_files(decoder, MODEL_FILE), **to_files(priming, PRIMING_FILE)}
    return Exported(place(files, target), contract_of(decoder), both)


def _write(
    model: onnx.ModelProto, verification: Verification, target: Path, largest_bytes: int = LARGEST_BYTES
) -> Exported:
    if verification.failures:
        raise VerificationError(verification)
    _promise(model, verification)
    file = place(to_files(model, MODEL_FILE, largest_bytes), target)
    return Exported(file, contract_of(model), verification)


def _promise(model: onnx.ModelProto, verification: Verification) -> None:
    contract = contract_of(model).model_copy(update={"invariant": verification.invariant})
    set_contract(model, contract)
