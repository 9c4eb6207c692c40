"""Pairs of sequences: what is read and what is to be written.

Axes: N pairs.
"""

import gzip
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.data.placed import FOLDER_VARIABLE, DataError
from model.data_recipe import PairsData

BEGIN, END = "<begin>", "<end>"
GENERATED = "reversal"
SCAN = {
    "scan-simple": (
        ("tasks_train_simple.txt", "941bb8a088c5f53ceff12fde902dc008933cf0c4203cc672c47b5f79d73262dd"),
        ("tasks_test_simple.txt", "1fe1c8f5a19d0dc40e41bab94278f45f66f3dc415a978bd29855a23440610fc6"),
    ),
    "scan-length": (
        ("tasks_train_length.txt", "b034212dc7cf87ce62f3a067dd6ad49c4d5cd18d51d615d13825516bcb1ebbc2"),
        ("tasks_test_length.txt", "0760752ed34a75116ae11dcc1ee17526b7500060da1366540730fa24894d7db3"),
    ),
}
"""github.com/brendenlake/SCAN: the files for training and test, and their sha256, under `scan/`; gzipped or not."""
_HELD_OUT = 20
"""Of the training part, every so manieth pair, in an order drawn once."""
_ORDER_SEED, _REVERSAL_SEED = 40_000, 40_001
_REVERSALS, _TESTED, _LONGEST, _LETTERS = 4000, 400, 10, "abcdefghij"

Sequence = tuple[str, ...]
Pair = tuple[Sequence, Sequence]


@dataclass(frozen=True)
class Pairs:
    """Pairs in three parts."""

    parts: dict[str, list[Pair]]
    """`training`, `validation` and `test`."""
    source: Sequence
    """The symbols that are read."""
    target: Sequence
    """The symbols that are written, after `BEGIN` and `END`."""
    sha256: str

    @property
    def names(self) -> tuple[str, ...]:
        """Both vocabularies one after the other; `split_names` takes them apart."""
        return (*self.source, BEGIN, END, *self.target)


def split_names(names: tuple[str, ...]) -> tuple[Sequence, Sequence]:
    """What is read, and what is written with `BEGIN` and `END` in front."""
    border = names.index(BEGIN)
    return names[:border], names[border:]


def load_pairs(data: PairsData) -> Pairs:
    """Read the pairs of a recipe.

    Args:
        data: `reversal`, which is generated, `scan-simple` or `scan-length`.

    Raises:
        DataError: there are no such pairs, or they are others.
    """
    if data.source == GENERATED:
        return _parted(
            _reversals(), None, hashlib.sha256(f"{GENERATED} {_REVERSAL_SEED}".encode()).hexdigest()
        )
    if data.source not in SCAN:
        raise DataError(f"no pairs {data.source}: expected {GENERATED}, {' or '.join(SCAN)}")
    training, test = (_content(file, sha256) for file, sha256 in SCAN[data.source])
    digest = hashlib.sha256(training + test).hexdigest()
    return _parted(_commands(training), _commands(test), digest)


def _parted(pairs: list[Pair], test: list[Pair] | None, sha256: str) -> Pairs:
    if test is None:
        pairs, test = pairs[:-_TESTED], pairs[-_TESTED:]
    order = np.random.default_rng(_ORDER_SEED).permutation(len(pairs))
    held_out = set(order[::_HELD_OUT].tolist())
    parts = {
        "training": [pair for k, pair in enumerate(pairs) if k not in held_out],
        "validation": [pairs[k] for k in sorted(held_out)],
        "test": test,
    }
    source, target = (tuple(sorted({symbol for pair in pairs for symbol in pair[side]})) for side in (0, 1))
    return Pairs(parts, source, target, sha256)


def _reversals() -> list[Pair]:
    """Different strings of letters, to be written from the end."""
    rng, found = np.random.default_rng(_REVERSAL_SEED), dict[Sequence, None]()
    while len(found) < _REVERSALS + _TESTED:
        letters = rng.choice(list(_LETTERS), rng.integers(3, _LONGEST + 1)).tolist()
        found[tuple(letters)] = None
    return [(word, word[::-1]) for word in found]


def _commands(content: bytes) -> list[Pair]:
    pairs = []
    for line in content.decode("ascii").splitlines():
        command, actions = line.removeprefix("IN: ").split(" OUT: ")
        pairs.append((tuple(command.split()), tuple(actions.split())))
    return pairs


def _content(file: str, expected: str) -> bytes:
    root = os.environ.get(FOLDER_VARIABLE)
    if not root:
        raise DataError(f"scan: {FOLDER_VARIABLE} is not set; expected the folder that holds scan/{file}")
    path = Path(root) / "scan" / file
    packed = path.with_name(f"{file}.gz")
    if not path.is_file() and not packed.is_file():
        raise DataError(f"scan: no file {path}, and none with .gz after it")
    content = path.read_bytes() if path.is_file() else gzip.decompress(packed.read_bytes())
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DataError(f"{path}: sha256 is {found}, expected {expected}")
    return content
