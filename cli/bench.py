"""Measure the service or the training, as ratios taken in one run.

carousel bench serve   rate, processor time and latency against a bare gRPC echo and against bare runs of the model
carousel bench engine  short steps beside long chunks, batches of mixed length against padding, a restart with many sessions
carousel bench million time of a step and memory with a million open sessions, of which 64 are active
carousel bench peers   rate and latency against MLServer, TorchServe and the KServe SDK, which `make peers` sets up
carousel bench train   time of a pass over time against torch.nn.LSTM; memory and time of gradient checkpointing
carousel bench export  time of every recurrence as a graph against the fused LSTM, per multiply-add

Nothing else should run meanwhile. Prints Markdown tables and writes every measurement to a JSON file; of the service
it draws a picture beside that.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.rows import Ratio

PEERS = ("mlserver", "torchserve", "kserve")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    what = parser.add_subparsers(
        dest="what", required=True, metavar="serve | engine | million | peers | train | export"
    )
    serve = what.add_parser("serve", help="against what the service stands on")
    engine = what.add_parser("engine", help="sessions beside each other, and a restart")
    engine.add_argument(
        "--sessions", type=int, default=100_000, metavar="N", help="of the restart (default: 100000)"
    )
    million = what.add_parser("million", help="many open sessions, few of them active")
    million.add_argument(
        "--sessions", type=int, default=1_000_000, metavar="N", help="open ones (default: 1000000)"
    )
    peers = what.add_parser("peers", help="against other servers")
    names = f"of {', '.join(PEERS)} (default: all)"
    peers.add_argument("names", nargs="*", type=_peer, default=PEERS, metavar="NAME", help=names)
    train = what.add_parser("train", help="cells over time, forwards and backwards, on one thread")
    train.add_argument("--runs", type=int, default=7, metavar="N", help="pairs of measurements (default: 7)")
    train.add_argument("--tried", action="store_true", help="measure the ways that are not used, too")
    train.add_argument(
        "--out",
        type=Path,
        default=Path("bench-train.json"),
        metavar="FILE",
        help="JSON (default: bench-train.json)",
    )
    export = what.add_parser("export", help="every recurrence as a graph, on one thread")
    export.add_argument(
        "--out",
        type=Path,
        default=Path("bench-export.json"),
        metavar="FILE",
        help="JSON (default: bench-export.json)",
    )
    for one in (serve, engine, million, peers):
        out = f"bench-{one.prog.split()[-1]}.json"
        one.add_argument(
            "--runs", type=int, default=5, metavar="N", help="pairs of measurements (default: 5)"
        )
        one.add_argument("--seconds", type=float, default=3.0, metavar="S", help="of each (default: 3)")
        one.add_argument("--out", type=Path, default=Path(out), metavar="FILE", help=f"JSON (default: {out})")


def run(args: argparse.Namespace) -> int:
    """Measure and report."""
    runs = {
        "serve": _serve,
        "engine": _engine,
        "million": _million,
        "peers": _peers,
        "train": _train,
        "export": _export,
    }
    return runs[args.what](args)


def _serve(args: argparse.Namespace) -> int:
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


def _engine(args: argparse.Namespace) -> int:
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


def _million(args: argparse.Namespace) -> int:
    import tempfile

    from bench.million import many_sessions
    from cli.progress import waiting

    with tempfile.TemporaryDirectory() as folder, waiting(f"opening {args.sessions} sessions"):
        _write_model(Path(folder), input_size=64, hidden_size=64, layers=1)
        ratios = many_sessions(Path(folder), args.sessions, args.runs, args.seconds)
    _report(ratios, args.out)
    return 0


def _export(args: argparse.Namespace) -> int:
    from cli import bench_export

    bench_export.run(args.out)
    return 0


def _peers(args: argparse.Namespace) -> int:
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


def _train(args: argparse.Namespace) -> int:
    from cli import bench_train

    bench_train.run(args.runs, args.out, tried=args.tried)
    return 0


def _report(ratios: "list[Ratio]", out: Path) -> None:
    from bench.plot import draw
    from bench.report import machine, table, write_json

    write_json(ratios, out)
    draw(ratios, ", ".join(str(part) for part in machine().values()), out.with_suffix(".png"))
    print(", ".join(f"{key} {value}" for key, value in machine().items()), end="\n\n")
    print(table(ratios))


def _peer(name: str) -> str:
    if name not in PEERS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(PEERS)}, got {name!r}")
    return name


def _write_model(repository: Path, **sizes: int) -> None:
    from export.bare import bare_lstm

    file = repository / "bench" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(bare_lstm(**sizes).SerializeToString())
