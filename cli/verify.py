"""Repeat what can be repeated from a model file alone.

Contract and graph, operators and versions, shapes and numbers of the weights; and, where the model promises it, that
one long run, chunks, ragged batches and single steps agree bit for bit on this machine.

  carousel verify models/stdlib
  carousel verify model.onnx
"""

import argparse
from pathlib import Path

from cli.checks import print_checks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `carousel verify` understands."""
    parser.add_argument("model", type=Path, help="a model file, a version's folder or a model's folder")


def run(args: argparse.Namespace) -> int:
    """Print the table of checks.

    Raises:
        CarouselError: the first check that did not pass, or why the file is no model.
    """
    from cli.progress import waiting
    from export.errors import ExportError
    from export.file import read_models
    from export.repository import find_model
    from export.verify import verify_file

    for found in read_models(find_model(args.model)):
        with waiting("verifying"):
            verification = verify_file(found)
        print(found.path)
        print_checks(verification)
        if verification.failures:
            raise ExportError(f"{found.path}: {verification.failures[0]}")
    return 0
