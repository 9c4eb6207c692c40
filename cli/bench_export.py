"""The part of `carousel bench` that measures graphs: it needs torch and onnx, which `bench/` may not load."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from export.speed import Speed


def run(out: Path) -> None:
    """Measure every recurrence as a graph, print a Markdown table for each width and write everything to a file.

    Args:
        out: The JSON file.
    """
    from bench.report import machine
    from cli.progress import waiting
    from export.speed import speeds
    from model.files import write_whole

    with waiting("measuring") as tell:
        found = list(speeds(tell))
    document = {"machine": machine(), "speed": [asdict(one) | {"per_work": one.per_work} for one in found]}
    write_whole(out, json.dumps(document, indent=1).encode())
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    for hidden in dict.fromkeys(one.hidden for one in found):
        print("", tables([one for one in found if one.hidden == hidden]), sep="\n")


def tables(found: Sequence["Speed"]) -> str:
    """Time as a ratio to the fused LSTM and, in brackets, that ratio divided by the ratio of multiply-adds."""
    shapes = list(dict.fromkeys((one.batch, one.steps) for one in found))
    cells = dict.fromkeys(one.cell for one in found)
    by_place = {(one.cell, one.batch, one.steps): one for one in found}
    heading = [f"H = {found[0].hidden}", *(f"B={batch} T={steps}" for batch, steps in shapes)]
    rows = [[cell, *(_ratio(by_place[cell, batch, steps]) for batch, steps in shapes)] for cell in cells]
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ratio(one: "Speed") -> str:
    return f"{one.ratio:.2f} ({one.per_work:.2f})"
