"""The course of a training: `history.jsonl`, one line an evaluation."""

import json
from pathlib import Path

from model.files import naming, write_whole

NAME = "history.jsonl"


def append(folder: Path, evaluation: dict[str, float]) -> None:
    """Add the line of an evaluation; it names its `updates`."""
    with naming(folder / NAME), (folder / NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(evaluation) + "\n")


def forget_after(folder: Path, updates: int) -> None:
    """Drop what came after this many updates: a training that goes on from there will write it anew."""
    file = folder / NAME
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["updates"] <= updates]
    write_whole(file, "".join(kept).encode())
