"""Show what a trained model does inside: its gates, gradients, memory and fixed points.

  carousel diagnose runs/stdlib --out report
  carousel diagnose runs/stdlib --data a-text.txt --beside runs/an-rnn --out report

The folder then holds `index.html`, one page that needs no network, and `report.json` with all numbers.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cli.progress import waiting

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `carousel diagnose` understands."""
    parser.add_argument("checkpoint", type=Path, help="a checkpoint, or the folder of a run")
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


def run(args: argparse.Namespace) -> int:
    """Look at the model, write the report and say where it is."""
    from model.checkpoint import load_checkpoint
    from model.diagnostics.report import PAGE, diagnose, write_report
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
    print(args.out / PAGE)
    return 0


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
