"""Files that are whole or not there."""

import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that whoever looks, and whatever breaks off, there is the old content or the new.

    The content goes to a temporary file in the same folder, which is then renamed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the new name with nothing behind it
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
