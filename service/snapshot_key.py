"""The secret that snapshots are sealed with."""

import secrets
from pathlib import Path

from carousel.errors import CarouselError

LEAST_BYTES = 32
MOST_BYTES = 4096


class SnapshotKeyError(CarouselError):
    """The file with the key cannot be used; says why."""


def snapshot_key(path: Path | None) -> bytes:
    """The content of a file; without one, a key that lives as long as this process.

    Raises:
        SnapshotKeyError: there is no such file, or it is too short or too long.
    """
    if path is None:
        return secrets.token_bytes(LEAST_BYTES)
    try:
        with path.open("rb") as file:
            key = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise SnapshotKeyError(f"{path}: expected a file with the snapshot key: {error.strerror}") from error
    if not LEAST_BYTES <= len(key) <= MOST_BYTES:
        came = f"{len(key)}" if len(key) <= MOST_BYTES else "more"
        raise SnapshotKeyError(
            f"{path}: expected a key of {LEAST_BYTES} to {MOST_BYTES} bytes, found {came}; "
            "make one with `head -c 32 /dev/urandom`"
        )
    return key
