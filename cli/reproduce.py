"""Train a recipe with the seeds and in the time that it states, test it once, and write its row of docs/results.md.

The best weights by the validation part are what is tested; nothing is chosen by the test.

  OMP_NUM_THREADS=1 carousel reproduce counting
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from carousel.errors import CarouselError

if TYPE_CHECKING:  # torch takes seconds to load
    from model.recipe import Recipe
    from model.target_recipe import TargetRecipe

RESULTS = Path("docs/results.md")
_HEAD = (
    "| recipe | figure | reached | target | published | seeds | time | machine | command | revision, date |"
)
_BUSY = 0.5
"""Load from which on a time is said to be taken beside other work."""


class ReproduceError(CarouselError):
    """The recipe promises nothing, or there is no table."""


@dataclass(frozen=True)
class Run:
    """What one training came to."""

    figures: dict[str, float]
    """Of its test."""
    seconds: float
    """Of the processor: other work beside it makes it take longer by the clock, not by this."""
    updates: int
    cut_off: bool
    """Whether its time was over before its updates were."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "recipe", help="a .toml file with a [target], or the name of one that comes with Carousel"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="keep the run folders here (default: nowhere)"
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        metavar="FILE",
        help="the page whose row is written (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Train, test, tell, write.

    Raises:
        ReproduceError: the recipe has no target, or the page no table.
    """
    from model.allocator import keep_freed_memory
    from model.recipe import find_recipe, read_recipe

    file = find_recipe(args.recipe)
    recipe = read_recipe(file)
    if recipe.target is None:
        raise ReproduceError(f"{file}: expected a [target], came none")
    _page(args.results)  # before a long training, not after it
    keep_freed_memory()
    load = os.getloadavg()[0]
    seeds = [recipe.training.seed + k for k in range(recipe.target.seeds)]
    with tempfile.TemporaryDirectory() as temporary:
        runs = [_run(recipe, seed, (args.out or Path(temporary)) / f"seed-{seed}") for seed in seeds]
    reached = _reached(recipe.target, runs)
    print(f"{file.stem}: {reached}")
    row = _row(file.stem, f"carousel reproduce {args.recipe}", recipe, runs, load)
    args.results.write_text(with_row(_page(args.results), row), encoding="utf-8")
    return 0


def with_row(page: str, row: str) -> str:
    """The page with a row in place of the one of the same recipe, or after all others."""
    name, lines = row.split(" | ", 1)[0], page.splitlines()
    begin = lines.index(_HEAD) + 2
    end = next((k for k in range(begin, len(lines)) if not lines[k].startswith("|")), len(lines))
    rows = [line for line in lines[begin:end] if line.split(" | ", 1)[0] != name]
    return "\n".join([*lines[:begin], *sorted([*rows, row]), *lines[end:]]) + "\n"


def _page(file: Path) -> str:
    page = file.read_text(encoding="utf-8")
    if _HEAD not in page.splitlines():
        raise ReproduceError(f"{file}: expected a table with the heading {_HEAD!r}")
    return page


def _run(recipe: "Recipe", seed: int, folder: Path) -> Run:
    import torch

    from model.checkpoint import load_checkpoint
    from model.tasks.tasks import load_data
    from model.training import Training

    assert recipe.target is not None
    longest = 60 * recipe.target.minutes
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"seed": seed})})
    training, start = Training(recipe, load_data(recipe), folder), time.process_time()
    torch.set_num_threads(1)
    cut_off = False
    for update in training.updates():
        if update.figures is not None:
            said = training.task.said(update.figures)
            print(f"seed {seed}, {update.number} updates: {said}", file=sys.stderr, flush=True)
        cut_off = not training.finished and time.process_time() - start > longest
        if cut_off and update.figures is not None:
            break
    seconds = time.process_time() - start
    figures = training.task.test(load_checkpoint(folder).model)
    return Run(figures, seconds, training.progress.updates, cut_off)


def _reached(target: "TargetRecipe", runs: list[Run]) -> str:
    """The mean over the seeds, the spread beside it, and whether it is good enough."""
    if target.figure not in runs[0].figures:
        raise ReproduceError(f"no figure {target.figure}: expected one of {', '.join(runs[0].figures)}")
    found = [run.figures[target.figure] for run in runs]
    spread = f" ({min(found):.4g} to {max(found):.4g})" if len(found) > 1 else ""
    good = "reached" if target.reached(fmean(found)) else "**not reached**"
    return f"{fmean(found):.4g}{spread}, {good}"


def _row(name: str, command: str, recipe: "Recipe", runs: list[Run], load: float) -> str:
    import torch

    from bench.report import machine
    from model.revision import revision
    from model.target_recipe import NONE_KNOWN

    target, on = recipe.target, machine()
    assert target is not None
    others = {key: fmean(run.figures[key] for run in runs) for key in runs[0].figures if key != target.figure}
    beside = "".join(f", {key} {value:.4g}" for key, value in others.items())
    quoted = "" if target.verified or target.published == NONE_KNOWN else " (not verified)"
    time_each = (
        f"{fmean(run.seconds for run in runs):.0f} s for {fmean(run.updates for run in runs):.0f} updates"
    )
    if any(run.cut_off for run in runs):
        time_each += ", cut off"
    if load >= _BUSY:
        time_each += f", beside other work (load {load:.1f})"
    cells = (
        name,
        target.figure,
        _reached(target, runs) + beside,
        target.said,
        f"{target.published}{quoted}",
        f"{recipe.training.seed}" + (f" to {recipe.training.seed + len(runs) - 1}" if len(runs) > 1 else ""),
        time_each,
        f"{on['cpu']}, one thread, torch {torch.__version__}",
        f"`{command}`",
        f"{_short(revision())}, {datetime.now(UTC).date()}",
    )
    return f"| {' | '.join(cells)} |"


def _short(revision: str) -> str:
    commit, _, changed = revision.partition("-")
    return f"{commit[:12] or 'unknown'}{' with changes' if changed else ''}"
