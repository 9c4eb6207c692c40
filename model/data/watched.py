"""Series that somebody watches for anomalies, and the windows in which there was one.

Axes: N rows in time.
"""

import csv
import gzip
import hashlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.data.placed import FOLDER_VARIABLE, DataError
from model.data_recipe import WatchedData

GENERATED, NAB = "spikes", "nab"
_NAB_SHA256 = "a8ea2145df8118a4ff5f02e989baa0e790c9a5bb23296d22fc74173b5adfaecd"
"""Of the windows, and of the name and the sha256 of every series."""
_SHARE, _MOST = 0.15, 750
"""Of a series nobody is judged by: NAB's probation."""
_SPIKES_SEED, _SPIKES_SERIES, _SPIKES_ROWS = 30_000, 6, 2000


@dataclass(frozen=True)
class Watched:
    """One series."""

    name: str
    values_N: NDArray[np.float64]
    windows: tuple[tuple[int, int], ...]
    """First and last row of each anomaly's window, ascending."""

    @property
    def probation(self) -> int:
        """The rows before judgement begins; all that a model may learn from."""
        return min(int(_SHARE * len(self.values_N)), _MOST)


@dataclass(frozen=True)
class Collection:
    """Many series."""

    series: tuple[Watched, ...]
    sha256: str

    @property
    def names(self) -> tuple[str, ...]:
        """What the one number of a step is."""
        return ("value",)


def load_watched(data: WatchedData) -> Collection:
    """Read the series of a recipe.

    Args:
        data: `spikes`, which is generated, or `nab`, the 58 series of the Numenta Anomaly Benchmark under CAROUSEL_DATA.

    Raises:
        DataError: they are not there, or not what they were.
    """
    if data.source == GENERATED:
        return Collection(spikes(), hashlib.sha256(f"{GENERATED} {_SPIKES_SEED}".encode()).hexdigest())
    folder = nab_folder()
    labels = (folder / "labels" / "combined_windows.json").read_bytes()
    windows = json.loads(labels)
    tables = {name: _table(folder / "data" / name) for name in sorted(windows)}
    digest = hashlib.sha256(labels)
    for name, content in tables.items():
        digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    if digest.hexdigest() != _NAB_SHA256:
        raise DataError(f"{folder}: sha256 of all series is {digest.hexdigest()}, expected {_NAB_SHA256}")
    return Collection(
        tuple(_series(name, tables[name], windows[name]) for name in tables), digest.hexdigest()
    )


def nab_folder() -> Path:
    """Where the benchmark lies.

    Raises:
        DataError: the folder is not named, or it is not in it.
    """
    root = os.environ.get(FOLDER_VARIABLE)
    if not root:
        raise DataError(f"{NAB}: {FOLDER_VARIABLE} is not set; expected the folder that holds {NAB}/")
    folder = Path(root) / NAB
    if not (folder / "labels" / "combined_windows.json").is_file():
        raise DataError(f"{NAB}: no file {folder / 'labels' / 'combined_windows.json'}")
    return folder


def windowed_gaussian() -> dict[str, NDArray[np.float64]]:
    """The scores that one of the benchmark's own detectors gives each series, where they lie beside it; else nothing.

    They are of the file of the benchmark's results, in thousandths: a line `name,scores` for each series.
    """
    file = nab_folder() / "reference_scores" / "windowedGaussian.csv.gz"
    if not file.is_file():
        return {}
    lines = gzip.decompress(file.read_bytes()).decode("utf-8").splitlines()[1:]
    pairs = (line.split(",") for line in lines)
    return {name: np.array(scores.split(), dtype=np.float64) / 1000 for name, scores in pairs}


def spikes() -> tuple[Watched, ...]:
    """Waves with noise; in two places of each the wave is lifted for some steps."""
    rng, t = np.random.default_rng(_SPIKES_SEED), np.arange(_SPIKES_ROWS)
    made = []
    for number in range(_SPIKES_SERIES):
        values_N = np.sin(2 * np.pi * t / (20 + 5 * number)) + 0.1 * rng.standard_normal(_SPIKES_ROWS)
        places = np.sort(rng.choice(np.arange(600, _SPIKES_ROWS - 100, 200), 2, replace=False)).tolist()
        for place in places:
            values_N[place : place + 5] += 2
        scale = 10.0**number  # whoever watches them has to scale them
        windows = tuple((place - 20, place + 20) for place in places)
        made.append(Watched(f"spikes-{number}", scale * values_N, windows))
    return tuple(made)


def _table(path: Path) -> bytes:
    packed = path.with_name(f"{path.name}.gz")
    if path.is_file():
        return path.read_bytes()
    if packed.is_file():
        return gzip.decompress(packed.read_bytes())
    raise DataError(f"{NAB}: no file {path}, and none with .gz after it")


def _series(name: str, content: bytes, windows: list[list[str]]) -> Watched:
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8"))))
    values_N = np.array([float(row["value"]) for row in rows])
    places = {np.datetime64(row["timestamp"]): k for k, row in reversed(list(enumerate(rows)))}
    found = [(places[np.datetime64(first)], places[np.datetime64(last)]) for first, last in windows]
    return Watched(name, values_N, tuple(sorted(found)))
