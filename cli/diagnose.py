"""Show what a trained model does inside: its gates, gradients, memory and fixed points.

  carousel diagnose runs/stdlib --out report
  carousel diagnose runs/stdlib --data a-text.txt --beside runs/an-rnn --out report
  carousel diagnose --live 127.0.0.1:8001 --session diary    what the gates of a running session do, as it is stepped

The folder then holds `index.html`, one page that needs no network, and `report.json` with all numbers.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cli.diagnose_live import LiveError, add_live_arguments, diagnose_live
from cli.progress import waiting

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `carousel diagnose` understands."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("checkpoint", nargs="?", type=Path, help="a checkpoint, or the folder of a run")
    what.add_argument("--live", metavar="ADDRESS", help="a running service, instead of a checkpoint")
    parser.add_argument(
        "--data",
        metavar="SOURCE",
        help="what to run it on, its held-out part (default: what it was trained on)",
    )
    parser.add_argument(
        "--beside", type=Path, metavar="CHECKPOINT", help="a model to compare its gradient flow with"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("report"), metavar="DIR", help="the folder (default: report)"
    )
    add_live_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Look at the model, write the report and say where it is."""
    from model.diagnostics.report import PAGE

    if args.live is None and args.session:
        raise LiveError("--session: expected --live ADDRESS beside it, came a checkpoint")
    (_diagnose if args.live is None else diagnose_live)(args)
    print(args.out / PAGE)
    return 0


def _diagnose(args: argparse.Namespace) -> None:
    from model.checkpoint import load_checkpoint
    from model.diagnostics.report import diagnose, write_report
    from model.diagnostics.subject import subject_of

    checkpoint = load_checkpoint(args.checkpoint)
    subject = subject_of(checkpoint, args.data, str(args.checkpoint))
    beside = None
    if args.beside is not None:
        beside = subject_of(load_checkpoint(args.beside), args.data, str(args.beside))
    folder = args.checkpoint if args.checkpoint.is_dir() else args.checkpoint.parent
    with waiting("diagnosing") as tell:
        chapters = diagnose(subject, folder, beside, tell)
    facts = {**_facts(checkpoint), "run on": subject.data}
    write_report(args.out, f"What {args.checkpoint} does inside", facts, chapters)


def _facts(checkpoint: "Checkpoint") -> dict[str, str]:
    sizes = checkpoint.recipe["model"]
    cell = sizes.get("cell", {}).get("kind", "lstm")
    figures = (f"{name.replace('_', ' ')} {figure:.5g}" for name, figure in checkpoint.metrics.items())
    return {
        "task": checkpoint.task,
        "model": f"{sizes['layers']} x {cell} of {sizes['hidden']} units",
        "reached": ", ".join(figures),
        "trained": f"{checkpoint.created}, code {checkpoint.revision or 'unknown'}",
    }
