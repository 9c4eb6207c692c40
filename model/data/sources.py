"""Where texts come from: a file, a folder, the standard library of Python, or a data set on this machine."""

import ast
import inspect
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from model.data.placed import DataError, placed

STANDARD_LIBRARY = "stdlib"
DOCSTRINGS = "docstrings"
DATA_SETS = ("tinyshakespeare",)
"""The texts among the data sets that are put in place by hand."""

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


def read_texts(source: str) -> list[str]:
    """The texts of a source, in an order that does not depend on the file system.

    Args:
        source: `stdlib` (the standard library of the running interpreter, without its tests and tables),
            `docstrings` (what its modules, classes and functions say of themselves, a text a module), the name of a
            data set, or the path of a text file or of a folder of them.

    Raises:
        DataError: nothing there, not UTF-8 text, or not the data set that the name promises.
    """
    if source == STANDARD_LIBRARY:
        return _standard_library()
    if source == DOCSTRINGS:
        return [text for module in _standard_library() if (text := "\n".join(docstrings_of(module)))]
    if source in DATA_SETS:
        return [_text(placed(source))]
    path = Path(source)
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        names = ", ".join((STANDARD_LIBRARY, DOCSTRINGS, *DATA_SETS))
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


def docstrings_of(module: str) -> Iterator[str]:
    """What the source of a module and its classes and functions say of themselves, unindented."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # old escapes in strings that are not ours
        tree = ast.parse(module)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text:
                yield f"{inspect.cleandoc(text)}\n"


def _is_read(name: str) -> bool:
    return _NOT_READ.isdisjoint(name.split("/")[:-1])
