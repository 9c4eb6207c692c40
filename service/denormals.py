"""Denormal numbers as zero, for the calling thread: one state of 1e-40 makes a whole batch up to 68 times slower.

ONNX Runtime has a setting for this, but it acts on the thread that makes the first session of the process and on no
other. The flag is kept in the thread's floating-point environment, which the C library reads and writes.
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_ENVIRONMENT_BYTES = 64
"""More than `fenv_t` takes anywhere."""
_FLAGS: dict[str, tuple[int, int]] = {
    "x86_64": (28, 0x8040),  # MXCSR: flush to zero, denormals are zero
    "aarch64": (0, 1 << 24),  # FPCR: flush to zero
}
"""By machine: where glibc's `fenv_t` has the control register, and the bits to set."""


class Denormals:
    """Switches the flag; does nothing where it does not know how, and runs are then only slower."""

    def __init__(self) -> None:
        flags = _FLAGS.get(platform.machine()) if platform.libc_ver()[0] == "glibc" else None
        self.known = flags is not None
        if flags is None:
            return
        libm = ctypes.CDLL("libm.so.6")
        self._get, self._set = libm.fegetenv, libm.fesetenv
        self._flushing = ctypes.create_string_buffer(_ENVIRONMENT_BYTES)
        self._get(self._flushing)
        position, bits = flags
        register = ctypes.c_uint32.from_buffer(self._flushing, position)
        register.value |= bits

    @contextmanager
    def as_zero(self) -> Iterator[None]:
        """In this thread, and until the end of the block."""
        if not self.known:
            yield
            return
        # What this thread had before: the one that made this object may have flushed already.
        kept = ctypes.create_string_buffer(_ENVIRONMENT_BYTES)
        self._get(kept)
        self._set(self._flushing)
        try:
            yield
        finally:
            self._set(kept)
