"""Turn a checkpoint into a verified, stateful ONNX model.

The graph is held against PyTorch, outputs and states, and against itself: one long run, chunks, ragged batches
and single steps have to agree bit for bit before the model may promise it. What does not pass is not written.

  carousel export runs/stdlib --out models/stdlib
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cli.table import print_table

if TYPE_CHECKING:
    from export.report import Check, Verification


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


def run(args: argparse.Namespace) -> int:
    """Export, print the table of checks and the file written.

    Raises:
        CarouselError: nothing was written; the line says why.
    """
    from cli.progress import waiting
    from export.door import VerificationError, export_checkpoint
    from model.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(args.checkpoint)
    try:
        with waiting("verifying"):
            exported = export_checkpoint(checkpoint, args.out, args.version)
    except VerificationError as error:
        _show(error.verification)
        raise
    _show(exported.verification)
    promise = "bit-identical" if exported.contract.invariant else "NOT bit-identical"
    print(f"\nwrote {exported.file} ({exported.file.stat().st_size / 1e6:.1f} MB)")
    print(f"results are {promise} for any batch and any chunking on a CPU")
    return 0


def _show(verification: "Verification") -> None:
    checks = (*verification.required, *verification.invariance)
    print_table(
        [
            ("check", "measured", "allowed", "result", ""),
            *((c.check, _number(c.measured), _number(c.allowed), _result(c), c.detail) for c in checks),
        ]
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.1e}"


def _result(check: "Check") -> str:
    if check.allowed is None:
        return "told"
    return "passed" if check.passed else "FAILED"
