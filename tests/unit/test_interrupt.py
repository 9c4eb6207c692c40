"""Signals that ask for an end instead of making it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cli.interrupt import asked_to_stop


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, interruptible: None) -> Iterator[None]:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted(number: signal.Signals) -> None:
    with asked_to_stop() as asked:
        assert asked() == 0
        os.kill(os.getpid(), number)
        assert asked() == number


def test_the_second_one_does_what_it_always_did() -> None:
    with asked_to_stop():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_under_torchrun_a_signal_may_come_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "here")
    with asked_to_stop() as asked:
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
            assert asked() == signal.SIGINT


def test_afterwards_ctrl_c_is_what_it_was() -> None:
    with asked_to_stop():
        pass
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_what_is_ignored_stays_ignored() -> None:
    program = """
import os, signal
from cli.interrupt import asked_to_stop
signal.signal(signal.SIGINT, signal.SIG_IGN)
with asked_to_stop() as asked:
    os.kill(os.getpid(), signal.SIGINT)
    print(asked())
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "0\n"
