"""What the C library does with memory that is freed."""

import ctypes
import sys

# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, and use it again.

    By default glibc gives large tensors back to the system. The next update asks for them again, and the system
    clears every page of them: that is a good part of a training step. In exchange the process never gets smaller,
    and its peak is higher, for tensors of many sizes do not fit into each other's places.

    Returns:
        Whether the C library can be told so; others than glibc are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    return bool(library.mallopt(_MMAP_MAX, 0) and library.mallopt(_TRIM_THRESHOLD, 2**31 - 1))
