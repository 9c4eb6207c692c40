"""The service and a peer, measured one after the other, and the ratios and tables that come out.

Every session takes one step at a time. At the peer a message is one step, as its protocol has it; at Carousel it is
that, on a stream a session, and then a frame with a step of each of 64 sessions.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.peers.measure import Load, Sample, measure
from bench.peers.servers import Peer, started
from bench.rows import CLIENTS, AtLeast, Ratio
from bench.run import service

SESSIONS = 64
INPUT_SIZE = 64
SINGLE, FRAMES = "64 sessions, 1 step a message", "frames of 64 sessions"


class Round(NamedTuple):
    """Measurements taken one after the other."""

    single: Sample
    frames: Sample
    peer: Sample


def beside(peer: Peer, models: Path, runs: int, seconds: float) -> list[Ratio]:
    """Measure the service beside a peer with the same model.

    Raises:
        CarouselError: The peer is not set up, does not answer, or answers in another size.
    """
    model = models / "bench" / "1" / "model.onnx"
    single = Load(CLIENTS, streams=SESSIONS, sessions=1, seconds=seconds, input_size=INPUT_SIZE)
    frames = replace(single, streams=CLIENTS, sessions=SESSIONS)
    with service(models) as serving, started(peer, model, INPUT_SIZE) as theirs:
        ours = replace(serving, kind="carousel")
        for target in (ours, theirs):
            measure(target, replace(single, seconds=peer.warm_up_s), model)
        rounds = [
            Round(measure(ours, single, model), measure(ours, frames, model), measure(theirs, single, model))
            for _ in range(runs)
        ]
    return [
        _rate(SINGLE, peer, rounds, lambda one: one.single),
        _rate(FRAMES, peer, rounds, lambda one: one.frames),
    ]


def _rate(row: str, peer: Peer, rounds: Sequence[Round], ours: Callable[[Round], Sample]) -> Ratio:
    return Ratio(
        row=row,
        figure="rate",
        against=peer.title,
        aim=AtLeast(5),
        runs=[ours(one).steps_per_second / one.peer.steps_per_second for one in rounds],
        samples=[{"ours": asdict(ours(one)), "base": asdict(one.peer)} for one in rounds],
    )


def server_table(ratios: Sequence[Ratio]) -> str:
    """A Markdown table of every server: medians of its runs, processor time of the median one, and its answers."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    for ratio in ratios:
        if ratio.row == SINGLE:
            lines.append(_line(ratio, "base", "1 step"))
            lines.append(_line(ratio, "ours", "1 step"))
        else:
            lines.append(_line(ratio, "ours", f"{SESSIONS} steps"))
    return "\n".join(lines)


def _line(ratio: Ratio, side: str, message: str) -> str:
    samples = [sample[side] for sample in ratio.samples]
    middle = sorted(samples, key=lambda sample: sample["steps_per_second"])[len(samples) // 2]
    busy = sorted(middle["server_processes"].items(), key=lambda one: -one[1])
    cells = [
        ratio.against,
        middle["target"],
        message,
        *(f"{median(sample[key] for sample in samples):.{digits}f}" for key, digits in _FIGURES),
        " + ".join(f"{who.rsplit(' ', 1)[0]} {share:.0%}" for who, share in busy),
        " + ".join(f"{share:.0%}" for share in middle["client_cpu"]),
        *(str(sum(sample[key] for sample in samples)) for key in ("checked", "wrong", "other_bits")),
    ]
    return f"| {' | '.join(cells)} |"


_COLUMNS = (
    *("run with", "server", "a message", "steps/s", "p50 ms", "p99 ms", "server CPU", "client CPU"),
    *("answers checked", "wrong", "other bits"),
)
_FIGURES = (("steps_per_second", 0), ("p50_ms", 1), ("p99_ms", 1))
