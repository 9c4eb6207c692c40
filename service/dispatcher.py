"""The one thread that touches state rows and runs models; and, of the same kind, the one that loads them."""

import asyncio
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

T = TypeVar("T")


def settle(future: asyncio.Future[T], outcome: T | Exception) -> None:
    """Give a future its result or its exception, unless whoever waited has left."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def outcome(job: Callable[[], T]) -> T | Exception:
    """What a job returns or raises."""
    try:
        return job()
    except Exception as error:
        return error


class Dispatch(Protocol):
    """Runs a job where rows may be touched, then calls `done` on the event loop."""

    def __call__(self, job: Callable[[], T], done: Callable[[T | Exception], None]) -> None:
        """Return at once. `done` gets the job's result or its exception."""
        ...


class Dispatcher:
    """A thread with a queue. Jobs run one after the other, in the order in which they came."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str = "dispatcher") -> None:
        self._loop = loop
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def __call__(self, job: Callable[[], T], done: Callable[[T | Exception], None]) -> None:
        """Queue a job; see `Dispatch`."""

        def run() -> None:
            self._loop.call_soon_threadsafe(done, outcome(job))

        self._jobs.put(run)

    async def call(self, job: Callable[[], T]) -> T:
        """Run a job and wait for its result."""
        future: asyncio.Future[T] = self._loop.create_future()

        self(job, partial(settle, future))
        return await future

    def stop(self, timeout_s: float) -> bool:
        """Finish what is queued and end the thread; False if it did not end in time."""
        self._jobs.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
