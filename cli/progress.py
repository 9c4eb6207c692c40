"""A bar for what takes its time and cannot say how much of it is left."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tell = Callable[[str], None]


@contextmanager
def waiting(what: str) -> Iterator[Tell]:
    """Show a moving bar and the time on standard error; nothing at all where that is no terminal.

    Yields:
        Call it to say what is being done now.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as progress:
        task = progress.add_task(what, total=None)
        yield lambda now: progress.update(task, description=now)
