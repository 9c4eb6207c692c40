"""Polyphonic music as piano rolls: which of the 88 keys sound in each frame.

Axes: T frames, K keys.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.data.matlab import read_matlab
from model.data.placed import PLACED, DataError, placed
from model.data_recipe import PiecesData

LOWEST, KEYS = 21, 88
"""MIDI numbers of a piano's keys: A0 is 21, C8 is 108."""
_PARTS = ("training", "validation", "test")
_NAMES = {"json": ("train", "valid", "test"), "mat": ("traindata", "validdata", "testdata")}
_PICKLES = (".pkl", ".pickle", ".p")
_NOTES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")

Roll = NDArray[np.float32]
"""`[T, K]`: 1 where a key sounds."""


@dataclass(frozen=True)
class Pieces:
    """Music in three parts."""

    parts: dict[str, list[Roll]]
    """`training`, `validation` and `test`, each with pieces of two frames or more."""
    sha256: str

    @property
    def names(self) -> tuple[str, ...]:
        """The keys, A0 to C8."""
        return tuple(f"{_NOTES[key % 12]}{key // 12 - 1}" for key in range(LOWEST, LOWEST + KEYS))


def load_pieces(data: PiecesData) -> Pieces:
    """Read the music of a recipe.

    Args:
        data: `jsb-chorales`, a JSON file with `train`, `valid` and `test`, each a list of pieces, each a list of
            frames, each a list of MIDI numbers; or a MATLAB file with `traindata`, `validdata` and `testdata`, each a
            cell array of piano rolls.

    Raises:
        DataError: there is no such file, or it is something else. Pickles are not read: reading one runs what it says.
    """
    path = placed(data.source) if data.source in PLACED else Path(data.source)
    if path.suffix in _PICKLES:
        raise DataError(f"{path}: expected JSON or MATLAB; a pickle can run any program, and is not read")
    if not path.is_file():
        raise DataError(f"no music {data.source}: expected a .json or .mat file or jsb-chorales")
    content = path.read_bytes()
    try:
        parts = _of_matlab(content) if path.suffix == ".mat" else _of_json(content)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{path}: not the music that was expected: {error!r}") from error
    for name, pieces in parts.items():
        if not pieces or min(map(len, pieces)) < 2:
            raise DataError(f"{path}: {name}: expected pieces of two frames or more")
    return Pieces(parts, hashlib.sha256(content).hexdigest())


def _of_json(content: bytes) -> dict[str, list[Roll]]:
    document = json.loads(content)
    return {
        part: [_roll(piece) for piece in document[name]]
        for part, name in zip(_PARTS, _NAMES["json"], strict=True)
    }


def _roll(piece: list[list[int]]) -> Roll:
    roll = np.zeros((len(piece), KEYS), np.float32)
    for frame, sounding in zip(roll, piece, strict=True):
        places = [int(key) - LOWEST for key in sounding if key > 0]
        if any(not 0 <= place < KEYS for place in places):
            raise ValueError(f"a key outside {LOWEST} to {LOWEST + KEYS - 1} among {sounding}")
        frame[places] = 1
    return roll


def _of_matlab(content: bytes) -> dict[str, list[Roll]]:
    found = read_matlab(content)
    parts = {
        part: [np.array(roll, np.float32) for roll in found[name]]
        for part, name in zip(_PARTS, _NAMES["mat"], strict=True)
    }
    for roll in (roll for rolls in parts.values() for roll in rolls):
        if roll.ndim != 2 or roll.shape[1] != KEYS or not np.isin(roll, (0, 1)).all():
            raise ValueError(f"a piano roll of shape {roll.shape}, expected {KEYS} columns of 0 and 1")
    return parts
