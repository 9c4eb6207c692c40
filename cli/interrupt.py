"""Signals that ask for an end instead of making it."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], int]]:
    """Let the first SIGINT or SIGTERM only be noted. The second one means it, and does what it always did.

    Under torchrun a second one is noted as well: Ctrl-C reaches a process from the terminal and then, again, from
    torchrun, which kills whoever does not end by itself.

    Yields:
        Call it for the number of the signal that came; 0 while none has.
    """
    came = 0
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    patient = "TORCHELASTIC_RUN_ID" in os.environ

    def note(number: int, _: FrameType | None) -> None:
        nonlocal came
        came = came or number
        if not patient:
            restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as a shell has it for what runs in the background
            signal.signal(number, note)
    try:
        yield lambda: came
    finally:
        restore()
