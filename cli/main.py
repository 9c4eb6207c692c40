"""The entry of the `carousel` command."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from carousel.errors import CarouselError

COMMANDS = {
    "train": "train a model from a recipe",
    "diagnose": "show what a trained model does inside",
    "reproduce": "train a recipe and put what it reached into the table of results",
    "export": "turn a checkpoint into a verified, stateful ONNX model",
    "inspect": "show what a model promises",
    "verify": "hold a model file against what it promises",
    "describe-cells": "show what each recurrent cell costs",
    "serve": "serve a repository of models over gRPC",
    "token": "make a token for somebody who is to call the service",
    "stream": "drive a session on a running service",
    "top": "watch a running service",
    "bench": "measure the service against what it stands on",
}
EXTRAS = {
    "lightning_fabric": "train",
    "matplotlib": "bench",
    "onnx": "export",
    "onnxruntime": "cpu",
    "safetensors": "train",
    "torch": "train",
}
"""Which extra brings a package that not every installation has."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit code: 0 done, 1 a mistake that was named, 2 wrong usage."""
    argv = list(sys.argv[1:] if argv is None else argv)
    # ONNX Runtime's Linux packages call home from 1.29 on, unless told otherwise before they are imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    command = argv[0] if argv and argv[0] in COMMANDS else None
    if command is None:
        _overview().parse_args(argv or ["--help"])
        return 2
    try:
        return _run(command, argv[1:])
    except (CarouselError, OSError) as error:
        line = _one_line(error)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:  # nobody's choice of extras, but a fault
            raise
        cure = f"install carousel[{EXTRAS[error.name]}]"
        line = f"expected the package {error.name}, which is not installed; {cure}"
    except KeyboardInterrupt:
        return 130
    print(f"carousel {command}: {line}", file=sys.stderr)
    return 1


def _run(command: str, argv: Sequence[str]) -> int:
    module = importlib.import_module(f"cli.{command.replace('-', '_')}")
    parser = argparse.ArgumentParser(
        prog=f"carousel {command}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(argv)))


def _overview() -> argparse.ArgumentParser:
    listing = "\n".join(f"  {name:<16}{summary}" for name, summary in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="carousel",
        description="Train recurrent networks, export them as stateful ONNX graphs, serve live sequences.",
        epilog=f"commands:\n{listing}\n\n`carousel COMMAND --help` tells more about each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    return parser


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())
