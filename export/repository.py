"""The folder of models on disk, as Triton lays it out: NAME/VERSION/model.onnx.

Beside it there may be weights that are too many for one file, and the graph that its sessions begin with.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from export.errors import ExportError

MODEL_FILE = "model.onnx"
PRIMING_FILE = "priming.onnx"
_NAME = re.compile(r"(?!\.)[A-Za-z0-9_.-]{1,128}")


def new_version(folder: Path, version: int | None) -> Path:
    """The folder of a version that does not exist yet; nothing is made.

    Args:
        folder: A model's folder; its last part is the model's name.
        version: None takes one more than the newest.

    Raises:
        ExportError: the name or the version cannot be used, or the version exists already.
    """
    if not _NAME.fullmatch(folder.name):
        raise ExportError(f"expected a model name of letters, digits, '_', '-' and '.', got {folder.name!r}")
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder}: expected a model's folder, found a file")
    if version is None:
        version = max(versions(folder), default=0) + 1
    if version < 1:
        raise ExportError(f"expected a version of 1 or more, got {version}")
    target = folder / str(version)
    if target.exists():
        raise ExportError(f"{target} exists already; versions are never overwritten")
    return target


def place(files: Mapping[str, Iterable[bytes]], target: Path) -> Path:
    """Write a version in one go: it is there as a whole or not at all, whatever happens meanwhile.

    Args:
        files: What is in each file, in parts, by its name; one is `MODEL_FILE`.
        target: The version's folder.

    Returns:
        The model's file.

    Raises:
        ExportError: another export was faster with the same version.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # On the same file system as the target, and hidden: readers take folders with numbers for names.
    staging = target.parent / f".{target.name}.{secrets.token_hex(4)}"
    try:
        _write(files, staging)
        staging.rename(target)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        with contextlib.suppress(OSError):  # it holds other versions
            target.parent.rmdir()
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise ExportError(f"{target} was made by someone else meanwhile") from error
        raise
    _sync(target.parent)
    return target / MODEL_FILE


def find_model(path: Path) -> Path:
    """The model file meant by a path: itself, that of a version's folder, or that of a model's newest version.

    Raises:
        ExportError: there is none.
    """
    if not path.is_dir():
        return path
    newest = [path / str(version) for version in sorted(versions(path), reverse=True)]
    for folder in (path, *newest):
        if (folder / MODEL_FILE).is_file():
            return folder / MODEL_FILE
    raise ExportError(f"{path}: expected {MODEL_FILE} or versions with one, found neither")


def versions(folder: Path) -> list[int]:
    """Numbers of the versions of a model, in no order; empty where there is no such folder."""
    if not folder.is_dir():
        return []
    return [int(entry.name) for entry in folder.iterdir() if re.fullmatch(r"[1-9][0-9]*", entry.name)]


def _write(files: Mapping[str, Iterable[bytes]], folder: Path) -> None:
    folder.mkdir()
    for name, parts in files.items():
        with (folder / name).open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
    _sync(folder)


def _sync(folder: Path) -> None:
    """Make the names in a folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
