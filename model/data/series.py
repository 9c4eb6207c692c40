"""Series: columns of numbers over time, and the windows that a forecaster reads.

Axes: N rows in time, C columns, I numbers read a step, O numbers forecast a step, L steps of a window, h horizon.
"""

import csv
import hashlib
import io
import math
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.data.placed import PLACED, DataError, placed
from model.data_recipe import SeriesData

GENERATED = "waves"
CALENDAR = ("hour.sin", "hour.cos", "weekday.sin", "weekday.cos")
"""Columns that are made of a column `date`: the time of the day and the day of the week as angles."""
_SHARES = (3, 5), (4, 5)
"""Where training ends, and where validation does."""
_WAVES_ROWS, _WAVES_SEED = 4000, 20_000
_DAY, _WEEK = 24, 7


@dataclass(frozen=True)
class Series:
    """A table, cut into three parts one after the other."""

    names: tuple[str, ...]
    """The columns, as a recipe orders them."""
    numbers_NC: NDArray[np.float64]
    sha256: str

    @property
    def borders(self) -> tuple[int, int]:
        """The rows at which validation and test begin."""
        first, second = (len(self.numbers_NC) * part // whole for part, whole in _SHARES)
        return first, second


def load_series(data: SeriesData) -> Series:
    """Read the columns of a recipe.

    Args:
        data: `waves`, `etth1`, or the path of a CSV file with one row a step and the names of the columns on top.

    Raises:
        DataError: there is no such table or column, or something in it is no number.
    """
    if data.source == GENERATED:
        table, digest = waves(), hashlib.sha256(f"{GENERATED} {_WAVES_SEED}".encode()).hexdigest()
    else:
        content = _content(data.source)
        table, digest = _table(content, data), hashlib.sha256(content).hexdigest()
    missing = [name for name in data.columns if name not in table]
    if missing:
        raise DataError(f"{data.source}: no column {missing[0]}, expected one of {', '.join(table)}")
    numbers_NC = np.stack([table[name] for name in data.columns], axis=1)[: data.rows]
    broken = np.argwhere(~np.isfinite(numbers_NC))
    if len(broken):
        row, column = broken[0]
        raise DataError(f"{data.source}: {data.columns[column]} of row {row + 1} is no finite number")
    return Series(data.columns, numbers_NC, digest)


def waves() -> dict[str, NDArray[np.float64]]:
    """A generated table: a `load` over hours that follows the day, the `temperature` before it and an `event` to come.

    temperature: a slow AR(1). event: 1 in some hours, which a planner would know ahead. load_t = the day's wave
    + 0.8 temperature_{t-3} + 2 event_t + noise of 0.1.
    """
    rng, hours = np.random.default_rng(_WAVES_SEED), np.arange(_WAVES_ROWS)
    temperature = np.zeros(_WAVES_ROWS)
    for t in range(1, _WAVES_ROWS):
        temperature[t] = 0.95 * temperature[t - 1] + 0.3 * rng.standard_normal()
    event = (rng.random(_WAVES_ROWS) < 0.1).astype(np.float64)
    load = 10 + np.sin(2 * np.pi * hours / _DAY) + 0.8 * np.roll(temperature, 3) + 2 * event
    load += 0.1 * rng.standard_normal(_WAVES_ROWS)
    return {"load": load, "temperature": 15 + temperature, "event": event}


def calendar(dates: list[datetime]) -> dict[str, NDArray[np.float64]]:
    """The columns of `CALENDAR`."""
    hours = np.array([(date.hour + date.minute / 60) / _DAY for date in dates])
    days = np.array([(date.weekday() + hour) / _WEEK for date, hour in zip(dates, hours, strict=True)])
    angles = (2 * math.pi * hours, 2 * math.pi * days)
    return dict(zip(CALENDAR, (f(angle) for angle in angles for f in (np.sin, np.cos)), strict=True))


def _content(source: str) -> bytes:
    path = placed(source) if source in PLACED else Path(source)
    if not path.is_file():
        raise DataError(f"no table {source}: expected a CSV file, {GENERATED} or one of {', '.join(PLACED)}")
    return path.read_bytes()


def _table(content: bytes, data: SeriesData) -> dict[str, NDArray[np.float64]]:
    try:
        rows = csv.DictReader(io.StringIO(content.decode("utf-8")), strict=True)
        lines = list(islice(rows, data.rows))
        names = [name for name in rows.fieldnames or () if name in data.columns]
        table = {name: np.array([float(line[name]) for line in lines]) for name in names}
        if "date" in (rows.fieldnames or ()):
            table |= calendar([datetime.fromisoformat(line["date"]) for line in lines])
    except (csv.Error, UnicodeDecodeError, ValueError, TypeError) as error:
        raise DataError(f"{data.source}: not a table of numbers: {error}") from error
    return table
