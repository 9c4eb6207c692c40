"""Watch a running service: sessions, rates, batches, latencies and refusals, by what its HTTP port says at /metrics.

carousel top                    the service on this machine; q or Ctrl-C ends
carousel top host:8002 --once   the figures of one second, a name and a number a line
"""

import argparse
import http.client
import math
import os
import select
import sys
import termios
import time
import tty
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from carousel.errors import CarouselError
from cli.top_figures import Figures, Scrape, figures, parse

INTERVAL_S = 1.0
ANSWER_S = 2.0
"""How long to wait for the server."""


class TopError(CarouselError):
    """There is nothing to be watched."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "address",
        nargs="?",
        default="127.0.0.1:8002",
        metavar="ADDRESS",
        help="HTTP port of the service (%(default)s)",
    )
    parser.add_argument("--once", action="store_true", help="print the figures of one second and end")


def run(args: argparse.Namespace) -> int:
    """Show figures until told to stop."""
    before = _scrape(args.address)
    if args.once:
        time.sleep(INTERVAL_S)
        for name, value in figures(before, _scrape(args.address)).lines():
            print(name, "-" if math.isnan(value) else f"{value:.6g}")
    elif not sys.stdout.isatty():
        raise TopError(
            "expected a terminal to show a live view on, came a pipe or a file; --once prints to those"
        )
    else:
        _watch(args.address, before)
    return 0


def _scrape(address: str) -> Scrape:
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=ANSWER_S) as response:
            scrape = parse(response.read().decode(), time.monotonic())
    except urllib.error.URLError as error:
        raise TopError(f"{address}: no answer from the HTTP port of a service: {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise TopError(f"{address}: expected the HTTP port of a service, came: {error}") from error
    if ("carousel_sessions", ()) not in scrape.samples:
        raise TopError(f"{address}: expected the metrics of a service, came others")
    return scrape


def _watch(address: str, before: Scrape) -> None:
    """Redraw until q is pressed. A server that is restarted is waited for."""
    shown: Figures | None = None
    trouble = ""
    with _keys_at_once(), Live(screen=True, auto_refresh=False) as live:
        while True:
            live.update(Group(*_view(address, shown, trouble)), refresh=True)
            if _pressed(INTERVAL_S) == "q":
                return
            try:
                after = _scrape(address)
            except TopError as error:
                trouble = str(error)
                continue
            shown, before, trouble = figures(before, after), after, ""


@contextmanager
def _keys_at_once() -> Iterator[None]:
    """Have keys without the return key, and unseen."""
    if not sys.stdin.isatty():
        yield
        return
    settings = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, settings)


def _pressed(seconds: float) -> str:
    """The key that is pressed within so many seconds."""
    if not sys.stdin.isatty():
        time.sleep(seconds)
        return ""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return os.read(sys.stdin.fileno(), 1).decode(errors="replace") if ready else ""


def _view(address: str, shown: Figures | None, trouble: str) -> Iterator[Text | Table]:
    yield Text.assemble(("carousel ", "bold"), address, ("   q ends", "dim"))
    if trouble:
        yield Text(trouble, style="red")
    if shown is None:
        yield Text("measuring", style="dim")
        return
    ready = ("ready", "green") if shown.ready else ("not ready", "red")
    yield Text.assemble(ready, f"   queue {shown.queued_chunks}   streams {shown.streams}")
    where = f"{shown.resident} in memory, {shown.spilled} in the file"
    yield Text(f"sessions {shown.sessions} of {shown.sessions_limit}: {where}")
    yield Text()
    yield _rates(shown)
    yield Text()
    yield _durations(shown)
    yield Text()
    for reason, rate in shown.refused_per_s.items():
        yield Text(f"refused {reason} {rate:.1f}/s", style="yellow")


def _rates(shown: Figures) -> Table:
    table = _table("model", "steps/s", "chunks/s", "batch", "padding", "tokens/s")
    for model in shown.models:
        table.add_row(
            model.model,
            f"{model.steps_per_s:,.0f}",
            f"{model.chunks_per_s:,.0f}",
            _or_dash(model.mean_batch, "{:.1f}"),
            _or_dash(model.padding_share, "{:.0%}"),
            f"{model.tokens_per_s:,.0f}",
        )
    return table


def _durations(shown: Figures) -> Table:
    table = _table("model", "queue p50", "p99", "run p50", "p99", "answer p50", "p99")
    for model in shown.models:
        pairs = (model.queue, model.run, model.answer)
        table.add_row(model.model, *(_time(seconds) for pair in pairs for seconds in pair))
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column(first, min_width=12)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True, min_width=9)
    return table


def _time(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds:.2f} s" if seconds >= 1 else _or_dash(seconds * 1e3, "{:.1f} ms")


def _or_dash(value: float, form: str) -> str:
    return "-" if math.isnan(value) else form.format(value)
