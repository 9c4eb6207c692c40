"""The same model in float32 and in less."""

import onnx

from export.characters import characters_model
from export.errors import ExportError
from export.metadata import contract_of, set_contract
from export.options import PLAIN, Options
from export.quantise import int8_dynamic, int8_weights
from model.checkpoint import Checkpoint


def refuse_what_cannot_be(options: Options) -> None:
    """Hold options against each other.

    Raises:
        ExportError: one line on what would have to be asked for instead.
    """
    precision, target = options.precision, options.target
    if precision == "fp16" and target == "cpu":
        raise ExportError(
            "fp16 is made for CUDA, a CPU computes in float32 anyway: expected --for cuda with it"
        )
    if options.single_step and target == "cpu":
        raise ExportError(
            "--single-step is for CUDA graphs, on a CPU it makes long runs slower: expected --for cuda with it"
        )
    if options.single_step and precision.startswith("int8"):
        raise ExportError(f"--single-step: expected --precision fp32 or fp16, got {precision}")
    if precision == "int8-dynamic" and target == "cuda":
        raise ExportError("int8-dynamic has no kernels on CUDA: expected --for cpu, or another precision")
    if precision == "int8-dynamic" and not options.batch_dependent:
        raise ExportError(
            "int8-dynamic has one scale for a whole batch, so that sessions change each other's results: "
            "expected --allow-batch-dependent with it, or --precision int8-weights"
        )


def refuse_all_but_plain(options: Options) -> None:
    """Hold options against graphs that are written in one way alone.

    Raises:
        ExportError: something else was asked for.
    """
    if options != PLAIN:
        raise ExportError(
            "whole-input graphs and encoder-decoders are written in one way: expected no --precision, no --observe, "
            "no --single-step, and of an encoder-decoder no --for"
        )


def both_precisions(checkpoint: Checkpoint, options: Options) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The graph in float32, and the same in the precision that was asked for; a contract in each."""
    if options.precision == "int8-weights":  # of the same Scan, as operators have no such weights
        model = characters_model(checkpoint, options)
        rounded = int8_weights(model)
    elif options.precision == "int8-dynamic":
        model = characters_model(checkpoint, options)
        rounded = int8_dynamic(model)
    else:
        model = characters_model(checkpoint, options._replace(precision="fp32"))
        return model, characters_model(checkpoint, options)
    plain = contract_of(model).model_copy(update={"precision": "fp32", "batch_dependent": False})
    set_contract(rounded, contract_of(model))
    set_contract(model, plain)
    return model, rounded
