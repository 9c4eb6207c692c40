"""Train a model from a recipe.

The run folder then holds the best and the last checkpoint and the history of the evaluations. Ctrl-C and SIGTERM
write where the training is before they end it; a second one ends it at once. A training that was stopped goes on with
--resume and ends, bit for bit, where it would have ended (same machine and numbers of threads and processes).

Several processes share the streams of a recipe: torchrun --nproc-per-node 2 -m cli train RECIPE
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from carousel.errors import CarouselError
from cli.interrupt import asked_to_stop

if TYPE_CHECKING:  # torch takes seconds to load, and `--help` needs none of it
    from model.recipe import Recipe
    from model.training import Training, Update

_THREADS = "threads of one operation (default: torch's; on a machine with other work to do, 1 is fastest)"

Show = Callable[["Update"], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("recipe", help="a .toml file, or the name of a recipe that comes with Carousel")
    parser.add_argument(
        "--data", metavar="SOURCE", help="a text file, a folder of them, stdlib or a data set's name"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the run folder (default: runs/NAME-OF-RECIPE)"
    )
    parser.add_argument("--threads", type=_count, metavar="N", help=_THREADS)
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint of the run folder"
    )


def run(args: argparse.Namespace) -> int:
    """Train; say how well the best weights do and where they are."""
    # Read by GNU's OpenMP when torch is loaded. Its threads spin long at every barrier, and where anything else uses a
    # core, an LSTM's many small steps then take many times as long. Not to spin at all is slow on idle cores.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    from model.processes import first_of_its_machine

    try:
        return _run(args)
    except (CarouselError, OSError):
        if first_of_its_machine():
            raise
        return 1  # the first process met the same mistake, and names it


def _run(args: argparse.Namespace) -> int:
    from model.allocator import keep_freed_memory
    from model.recipe import find_recipe, read_recipe

    file = find_recipe(args.recipe)
    recipe = read_recipe(file)
    if args.data is not None:
        recipe = recipe.with_source(args.data)
    keep_freed_memory()
    training = _prepare(recipe, args.out or Path("runs") / file.stem, args)
    if number := _train(training):
        if training.first:
            _say(f"stopped after {training.progress.updates} updates; --resume goes on from there")
        return 128 + number
    if training.first:
        figures = training.measure()
        print(f"{training.folder}: {training.task.said(figures)} after {int(figures['updates'])} updates")
    return 0


def _prepare(recipe: "Recipe", folder: Path, args: argparse.Namespace) -> "Training":
    import torch

    from model.tasks.tasks import load_data
    from model.training import Training

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it reports its choices, we report ours
    training = Training(recipe, load_data(recipe), folder, resume=args.resume)
    if training.first:
        _say(training.summary)
    return training


def _train(training: "Training") -> int:
    """Train to the end, or to a signal, whose number it returns."""
    display = _silence if not training.first else _bar if sys.stderr.isatty() else _lines
    with asked_to_stop() as asked, display(training) as show:
        for update in training.updates():
            show(update)
            if number := training.agreed(asked()):
                training.save()
                return number
    return 0


@contextmanager
def _silence(_: "Training") -> Iterator[Show]:
    yield lambda _: None


@contextmanager
def _bar(training: "Training") -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("training", total=training.recipe.training.updates)

        def show(update: "Update") -> None:
            progress.update(task, completed=update.number, description=f"loss {update.loss:.3f}")
            if update.figures is not None:
                progress.console.print(_line(training, update))

        yield show


@contextmanager
def _lines(training: "Training") -> Iterator[Show]:
    def show(update: "Update") -> None:
        if update.figures is not None:
            _say(_line(training, update))

    yield show


def _line(training: "Training", update: "Update") -> str:
    held_out = training.task.said(update.figures or {})
    return f"{update.number} updates: loss {update.loss:.3g}, {held_out}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, came {text}")
    return number
