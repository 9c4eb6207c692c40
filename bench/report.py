"""What a benchmark leaves behind: a table for people, JSON for machines, a picture for both."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.rows import Ratio


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def table(ratios: Sequence[Ratio]) -> str:
    """A Markdown table: the median of each figure, its spread, and the load of every process in the median run."""
    lines = [
        "| shape | figure | against | to reach | median | spread | server and client CPU, ours | baseline |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for ratio in ratios:
        sample = ratio.samples[ratio.runs.index(sorted(ratio.runs)[len(ratio.runs) // 2])]
        spread = f"{min(ratio.runs):.2f} to {max(ratio.runs):.2f}"
        lines.append(
            f"| {ratio.row} | {ratio.figure} | {ratio.against} | {ratio.aim} | {ratio.median:.2f} | {spread} "
            f"| {_load(sample['ours'])} | {_load(sample['base']) if 'base' in sample else ''} |"
        )
    return "\n".join(lines)


def write_json(ratios: Sequence[Ratio], file: Path) -> None:
    """Every measurement, with the machine."""
    document = {"machine": machine(), "ratios": [{**asdict(one), "median": one.median} for one in ratios]}
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(document, indent=1))
    temporary.replace(file)


def _load(sample: dict[str, Any]) -> str:
    clients = " + ".join(f"{share:.0%}" for share in sample["client_cpu"])
    # What is done once has a time instead of a rate.
    done = (
        f"{sample['steps_per_second']:.0f} steps/s"
        if "steps_per_second" in sample
        else f"{sample['seconds']:.2f} s"
    )
    return f"{done}: {sample['server_cpu']:.0%}" + (f", {clients}" if clients else "")
