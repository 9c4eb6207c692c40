"""Show what each recurrent cell costs: parameters, multiply-adds of a step, size of the state.

Beside an LSTM stands a Transformer layer of the same width that keeps the keys and values of what it has read.

  carousel describe-cells
  carousel describe-cells --input 64 --hidden 512
  carousel describe-cells --time
"""

import argparse
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from cli.table import print_table

if TYPE_CHECKING:
    from model.costs import Cost

CONTEXTS = (1, 64, 512, 4096, 32768)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `carousel describe-cells` understands."""
    parser.add_argument("--input", type=_size, default=256, metavar="N", help="n_x (default: 256)")
    parser.add_argument("--hidden", type=_size, default=256, metavar="N", help="n_h (default: 256)")
    parser.add_argument(
        "--time", action="store_true", help="measure the steps of the second table: batch 1, one thread"
    )


def run(args: argparse.Namespace) -> int:
    """Print both tables."""
    from model.costs import COSTS

    halved = max(1, args.hidden // 2)
    sizes = {"n_x": args.input, "n_h": args.hidden, "n_p": halved, "n_m": args.hidden, "n_k": 2}
    heading = ("cell", "parameters", "", "multiply-adds a step", "", "numbers carried", "")
    print_table([heading, *((name, *_row(cost, sizes)) for name, cost in COSTS.items())])
    print("\nn_x inputs, n_h units, n_p projection, n_m intermediate, n_k children of a node:")
    print(", ".join(f"{name} = {size}" for name, size in sizes.items()), end="\n\n")
    print_table(_beside_a_transformer(args.hidden, _times(args.hidden) if args.time else None))
    return 0


def _size(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text}")
    return int(text)


def _row(cost: "Cost", sizes: dict[str, int]) -> tuple[str, ...]:
    from model.costs import count

    possible = not cost.square or sizes["n_x"] == sizes["n_h"]
    cells = []
    for formula in (cost.parameters, cost.multiply_adds, cost.state):
        cells += [formula, _number(count(formula, **sizes)) if possible else "needs n_x = n_h"]
    return tuple(cells)


def _number(number: float) -> str:
    return f"{number:>15,.0f}"


def _beside_a_transformer(width: int, times: list[tuple[float, float]] | None) -> list[list[str]]:
    from model.costs import COSTS, TRANSFORMER, count

    layers = {"LSTM": COSTS["lstm"], "Transformer": TRANSFORMER}
    heading = ["steps read"]
    for name in layers:
        heading += [f"{name}: numbers carried", "multiply-adds a step"]
    rows = [heading]
    for context in CONTEXTS:
        sizes = {"n_x": width, "n_h": width, "n_t": context}
        formulas = (formula for cost in layers.values() for formula in (cost.state, cost.multiply_adds))
        rows.append([f"{context:>10,}", *(_number(count(formula, **sizes)) for formula in formulas)])
    if times:
        heading += ["LSTM: µs a step", "Transformer: µs a step"]
        for row, measured in zip(rows[1:], times, strict=True):
            row += [_number(1e6 * seconds) for seconds in measured]
    return rows


def _times(width: int) -> list[tuple[float, float]]:
    """Seconds of a step of an LSTM and of a Transformer layer, for each context."""
    import torch
    from torch import nn

    from model.cached_attention import Cache, cached_step
    from model.cells.lstm import LSTM

    torch.set_num_threads(1)
    heads = width // 64 if width % 64 == 0 else 1
    layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, norm_first=True).eval()
    cell, x = LSTM(width, width), torch.randn(1, width)
    state = cell.initial_state(1)
    measured = []
    with torch.no_grad():
        for context in CONTEXTS:
            cache = Cache(*torch.zeros(2, 1, context, width))
            runs = partial(cell.step, x, state), partial(cached_step, layer, x, cache, context - 1)
            measured.append((_best(runs[0]), _best(runs[1])))
    return measured


def _best(run: Callable[[], object], repeats: int = 20) -> float:
    """Seconds of the fastest of some runs: what disturbs a run only ever makes it longer."""
    times = []
    for _ in range(repeats):
        start = perf_counter()
        run()
        times.append(perf_counter() - start)
    return min(times)
