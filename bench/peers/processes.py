"""Processes of a benchmark: a server with all that it starts, what each of them uses, and its end."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE_S = 10
"""Between asking a server to end and ending it."""


@contextmanager
def group(
    command: Sequence[str | Path], folder: Path, settings: Mapping[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """A command in a process group of its own, which ends as a whole; what it says is in `log` in its folder."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **settings},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask the whole group to end, then insist; children that outlived their parent go with it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(PATIENCE_S)
        except ProcessLookupError:
            return  # nobody is left in the group
        except subprocess.TimeoutExpired:
            continue


def cpu_seconds(root: int) -> dict[str, float]:
    """User and system time of a process and all its descendants, by name and number (proc(5), stat)."""
    times: dict[int, tuple[str, float]] = {}
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, tail = stat.read_text().rsplit(")", 1)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended between the two looks
        number, name = head.split("(", 1)
        pid, fields = int(number), tail.split()
        parents[pid] = int(fields[1])
        times[pid] = f"{name} {pid}", (int(fields[11]) + int(fields[12])) / _TICKS
    family = {root}
    while grown := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= grown
    return dict(times[pid] for pid in sorted(family) if pid in times)
