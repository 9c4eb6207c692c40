"""The gates of one running session: asked for again and again, and drawn."""

import argparse
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from carousel.errors import CarouselError
from cli.progress import Tell, waiting

if TYPE_CHECKING:
    from carousel.client import Session
    from model.diagnostics.show_live import Moment

ANSWER_S = 5.0
"""How long to wait for the server."""


class LiveError(CarouselError):
    """There is nothing to be watched."""


class _Seen(NamedTuple):
    moments: "list[Moment]"
    end: str
    """Why no more was seen."""


def add_live_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what goes with --live."""
    live = parser.add_argument_group("with --live")
    live.add_argument("--session", default="", metavar="ID", help="the session, of an --observe model")
    live.add_argument(
        "--seconds",
        type=_seconds,
        default=30.0,
        metavar="S",
        help="how long, unless the session or Ctrl-C ends it (%(default)g)",
    )
    live.add_argument(
        "--every", type=_seconds, default=0.1, metavar="S", help="time between two looks (%(default)g)"
    )
    live.add_argument(
        "--token-file", type=Path, metavar="FILE", help="your token, as `carousel token` printed it"
    )


def diagnose_live(args: argparse.Namespace) -> None:
    """Watch the session and write the report.

    Raises:
        LiveError: the session has no observed model, or made no step.
        ClientError: there is no such session, or no server.
    """
    from carousel.client import Client
    from model.diagnostics.report import write_report
    from model.diagnostics.show_live import live_chapters

    if not args.session:
        raise LiveError("--live: expected --session ID, came none")
    if args.data is not None or args.beside is not None:
        raise LiveError("--live: expected no --data and no --beside, which belong to a checkpoint")
    token = None if args.token_file is None else args.token_file.read_text().strip()
    with Client(args.live, token=token, timeout_s=ANSWER_S) as client:
        session = client.attach(args.session)
        key = f"{session.model}/{session.version}"
        if session.contract.observed is None:
            raise LiveError(f"{key}: expected a model exported with --observe, came one without")
        with waiting(f"watching {args.session}") as tell:
            moments, end = _watch(session, args.seconds, args.every, tell)
    if not moments:
        raise LiveError(f"session {args.session!r} made no step that could be seen ({end})")
    facts = {
        "model": key,
        "server": args.live,
        "steps": f"{moments[0].steps} to {moments[-1].steps}, seen {len(moments)} times",
        "asked": f"every {args.every:g} s, until {end}",
    }
    write_report(args.out, f"What session {args.session} did inside", facts, live_chapters(moments))


def _watch(session: "Session", seconds: float, every: float, tell: Tell) -> _Seen:
    """What the session did from now on, a moment for each look at which it had moved."""
    from carousel.client import ServerUnreachableError, SessionGoneError
    from model.diagnostics.show_live import Moment

    moments: list[Moment] = []
    stop, before = time.monotonic() + seconds, None
    try:
        while True:
            told = session.describe()
            if told.observed and before not in (None, told.next_index):
                moments.append(Moment(told.next_index, told.observed))
                tell(f"watching {session.id}: step {told.next_index}")
            before = told.next_index
            left = stop - time.monotonic()
            if left <= 0:
                return _Seen(moments, f"{seconds:g} s were over")
            time.sleep(min(every, left))
    except KeyboardInterrupt:
        return _Seen(moments, "Ctrl-C")
    except (SessionGoneError, ServerUnreachableError) as error:  # what was seen is not lost with them
        return _Seen(moments, str(error))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds, more than 0, came {text!r}")
    return seconds
