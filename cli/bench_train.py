"""The part of `carousel bench` that measures training: it needs torch, which `bench/` may not load."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.memory import Peak
    from model.speed import Speed


def run(runs: int, out: Path, *, tried: bool) -> None:
    """Measure, print two Markdown tables and write every measurement to a file.

    Args:
        runs: Measurements of each line.
        out: The JSON file.
        tried: Measure the ways that are not used, too.
    """
    from bench.report import machine
    from cli.progress import waiting
    from model import memory, speed
    from model.files import write_whole

    speeds, peaks = [], []
    with waiting("measuring") as tell:
        for line in speed.speeds(runs, tried=tried):
            speeds.append(line)
            tell(f"measured {line.cell}, {line.way}")
        for peak in memory.peaks(runs):
            peaks.append(peak)
            tell(f"measured the memory of {peak.steps} steps")
    document = {
        "machine": machine(),
        "speed": [asdict(line) | {"median": line.median} for line in speeds],
        "checkpointing": [asdict(peak) for peak in peaks],
    }
    write_whole(out, json.dumps(document, indent=1).encode())
    print(", ".join(f"{key} {value}" for key, value in machine().items()), end="\n\n")
    print(_speeds(speeds), _peaks(peaks), sep="\n\n")


def _speeds(speeds: Iterable["Speed"]) -> str:
    heading = ("cell", "way", "time a multiply-add / torch.nn.LSTM's", "spread", "to reach", "ms")
    rows = [
        (
            line.cell,
            line.way,
            f"{line.median:.2f}",
            f"{min(line.runs):.2f} to {max(line.runs):.2f}",
            "" if line.at_most is None else f"≤ {line.at_most:g}",
            f"{median(line.milliseconds):.0f}",
        )
        for line in speeds
    ]
    return _table(heading, rows)


def _peaks(peaks: Iterable["Peak"]) -> str:
    heading = ("steps", "checkpointing", "peak memory, MiB", "ms", "spread")
    rows = [
        (
            str(peak.steps),
            "yes" if peak.checkpointing else "no",
            f"{peak.mebibytes:.0f}",
            f"{median(peak.milliseconds):.0f}",
            f"{min(peak.milliseconds):.0f} to {max(peak.milliseconds):.0f}",
        )
        for peak in peaks
    ]
    return _table(heading, rows)


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
