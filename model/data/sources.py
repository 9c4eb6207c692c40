"""Where texts come from: a file, a folder, the standard library of Python, or a data set on this machine."""

import hashlib
import os
import sysconfig
from pathlib import Path

from carousel.errors import CarouselError

FOLDER_VARIABLE = "CAROUSEL_DATA"
STANDARD_LIBRARY = "stdlib"

DATA_SETS = {
    # github.com/karpathy/char-rnn, data/tinyshakespeare: 1 115 394 characters.
    "tinyshakespeare": (
        "tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
}
"""Name, file under the folder that CAROUSEL_DATA names, sha256."""

# Tests and test data, code that is not Python's own, and tables in Python's clothes, which are no prose of a programmer.
_NOT_READ = {
    "__pycache__",
    "dist-packages",
    "encodings",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "turtledemo",
}


class DataError(CarouselError):
    """There is no such text, or it cannot be used."""


def read_texts(source: str) -> list[str]:
    """The texts of a source, in an order that does not depend on the file system.

    Args:
        source: `stdlib` (the standard library of the running interpreter, without its tests and tables), the
            name of a data set, or the path of a text file or of a folder of them.

    Raises:
        DataError: nothing there, not UTF-8 text, or not the data set that the name promises.
    """
    if source == STANDARD_LIBRARY:
        return _standard_library()
    if source in DATA_SETS:
        return [_data_set(source)]
    path = Path(source)
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        names = ", ".join((STANDARD_LIBRARY, *DATA_SETS))
        raise DataError(f"no text {source}: expected a file, a folder or one of {names}")
    return [_text(path)]


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")  # bytes: line ends stay as they are
    except UnicodeDecodeError as error:
        came = f"byte 0x{error.object[error.start]:02x} at {error.start}"
        raise DataError(f"{path}: expected UTF-8 text, came {came}") from error


def _folder(folder: Path) -> list[str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    if not files:
        raise DataError(f"{folder}: no files in it")
    return [_text(path) for path in files]


def _standard_library() -> list[str]:
    folder = Path(sysconfig.get_path("stdlib"))
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))
    # _sysconfigdata holds the paths and flags of the machine that Python was built on.
    return [_text(folder / name) for name in names if _is_read(name) and "_sysconfigdata" not in name]


def _is_read(name: str) -> bool:
    return _NOT_READ.isdisjoint(name.split("/")[:-1])


def _data_set(name: str) -> str:
    file, expected = DATA_SETS[name]
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        raise DataError(f"{name}: {FOLDER_VARIABLE} is not set; expected the folder that holds {file}")
    path = Path(folder) / file
    if not path.is_file():
        raise DataError(f"{name}: no file {path}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise DataError(f"{path}: sha256 is {found}, expected {expected}")
    return _text(path)
