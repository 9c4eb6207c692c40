"""Turn a checkpoint into a verified, stateful ONNX model.

The graph is held against PyTorch, outputs and states; what does not pass is not written. It is held against itself
too: where one long run, chunks, ragged batches and single steps agree bit for bit, the model promises it. Where their
results differ it is written all the same, without that promise.

  carousel export runs/stdlib --out models/stdlib
"""

import argparse
from pathlib import Path

from cli.checks import print_checks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `carousel export` understands."""
    parser.add_argument(
        "checkpoint", type=Path, help="a run's folder, of which the best checkpoint is taken, or a checkpoint"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="the model's folder, such as models/NAME; made if it is not there",
    )
    parser.add_argument(
        "--version", type=int, help="version to write, one that does not exist yet (default: the next)"
    )
    parser.add_argument(
        "--for",
        dest="target",
        choices=("cpu", "cuda"),
        default="cpu",
        help="where it is to run: with cuda the rows of all sessions stay on the device (default: cpu)",
    )
    parser.add_argument(
        "--single-step",
        action="store_true",
        help="with --for cuda: write a graph of one step, which `carousel serve --cuda-graphs` can record",
    )
    parser.add_argument(
        "--observe", action="store_true", help="add what the gates do as an output, for the service's metrics"
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8-weights", "int8-dynamic"),
        default="fp32",
        help="of the arithmetic; less than fp32 is measured on the held-out text (default: fp32)",
    )
    parser.add_argument(
        "--allow-batch-dependent",
        action="store_true",
        help="let sessions change each other's results, as int8-dynamic does",
    )


def run(args: argparse.Namespace) -> int:
    """Export, print the table of checks and the file written.

    Raises:
        CarouselError: nothing was written; the line says why.
    """
    from cli.progress import waiting
    from export.door import VerificationError, export_checkpoint
    from export.options import Options
    from model.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(args.checkpoint)
    try:
        with waiting("verifying"):
            options = Options(
                args.target, args.observe, args.precision, args.allow_batch_dependent, args.single_step
            )
            exported = export_checkpoint(checkpoint, args.out, args.version, options)
    except VerificationError as error:
        print_checks(error.verification)
        raise
    print_checks(exported.verification)
    promise = "bit-identical" if exported.contract.invariant else "NOT bit-identical"
    print(f"\nwrote {exported.file} ({exported.file.stat().st_size / 1e6:.1f} MB)")
    print(f"results are {promise} for any batch and any chunking on a CPU")
    return 0
