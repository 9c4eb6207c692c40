"""The parts of `carousel bench` that measure the service."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.rows import Ratio


def serve(args: argparse.Namespace) -> int:
    """Against what the service stands on."""
    import tempfile

    from bench import rows
    from cli.progress import waiting

    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder, "small"), Path(folder, "large")
        _write_model(small, input_size=64, hidden_size=128, layers=1)
        _write_model(large, input_size=1024, hidden_size=1024, layers=2)
        plan = [
            (rows.one_step_a_message, small),
            (rows.columnar_frames, small),
            (rows.one_session, small),
            (rows.large_model, large),
        ]
        ratios = []
        with waiting("measuring") as tell:
            for number, (measure, models) in enumerate(plan, 1):
                tell(f"{number} of {len(plan)}: {measure.__name__.replace('_', ' ')}")
                ratios += measure(models, args.runs, args.seconds)
    _report(ratios, args.out)
    return 0


def engine(args: argparse.Namespace) -> int:
    """Sessions beside each other, and a restart."""
    import tempfile

    from bench.long_chunks import one_streams_long_chunks
    from bench.mixed_lengths import mixed_lengths
    from bench.restart import drain_and_restart
    from cli.progress import waiting

    with tempfile.TemporaryDirectory() as folder, waiting("measuring") as tell:
        small, large = Path(folder, "small"), Path(folder, "large")
        _write_model(small, input_size=64, hidden_size=128, layers=1)
        _write_model(large, input_size=64, hidden_size=512, layers=1)
        tell("1 of 4: one streams long chunks")
        ratios = one_streams_long_chunks(small, args.runs, args.seconds)
        tell("2 of 4: mixed lengths")
        ratios += mixed_lengths(small, "H=128", args.runs, args.seconds)
        tell("3 of 4: mixed lengths, large model")
        ratios += mixed_lengths(large, "H=512", args.runs, args.seconds)
        tell("4 of 4: drain and restart")
        ratios += drain_and_restart(small, args.runs, args.sessions)
    _report(ratios, args.out)
    return 0


def million(args: argparse.Namespace) -> int:
    """Many open sessions, few of them active."""
    import tempfile

    from bench.million import many_sessions
    from cli.progress import waiting

    with tempfile.TemporaryDirectory() as folder, waiting(f"opening {args.sessions} sessions"):
        _write_model(Path(folder), input_size=64, hidden_size=64, layers=1)
        ratios = many_sessions(Path(folder), args.sessions, args.runs, args.seconds)
    _report(ratios, args.out)
    return 0


def peers(args: argparse.Namespace) -> int:
    """Against other servers."""
    import tempfile

    from bench.peers.compare import beside, server_table
    from bench.peers.servers import PEERS, check
    from cli.progress import waiting

    peers = [PEERS[name] for name in args.names]
    for peer in peers:
        check(peer)
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        _write_model(models, input_size=64, hidden_size=128, layers=1)
        ratios = []
        with waiting("measuring") as tell:
            for number, peer in enumerate(peers, 1):
                tell(f"{number} of {len(peers)}: {peer.title}")
                ratios += beside(peer, models, args.runs, args.seconds)
    _report(ratios, args.out)
    print("\n" + server_table(ratios))
    return 0


def _report(ratios: "list[Ratio]", out: Path) -> None:
    from bench.plot import draw
    from bench.report import machine, table, write_json

    write_json(ratios, out)
    draw(ratios, ", ".join(str(part) for part in machine().values()), out.with_suffix(".png"))
    print(", ".join(f"{key} {value}" for key, value in machine().items()), end="\n\n")
    print(table(ratios))


def _write_model(repository: Path, **sizes: int) -> None:
    from export.bare import bare_lstm

    file = repository / "bench" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(bare_lstm(**sizes).SerializeToString())
