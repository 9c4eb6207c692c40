"""Measure the service or the training, as ratios taken in one run.

carousel bench serve   rate, processor time and latency against a bare gRPC echo and against bare runs of the model
carousel bench engine  short steps beside long chunks, batches of mixed length against padding, a restart with many sessions
carousel bench million time of a step and memory with a million open sessions, of which 64 are active
carousel bench peers   rate and latency against MLServer, TorchServe and the KServe SDK, which `make peers` sets up
carousel bench train   time of a pass over time against torch.nn.LSTM; memory and time of gradient checkpointing
carousel bench export  time of every recurrence as a graph against the fused LSTM, per multiply-add
carousel bench cuda    steps on a GPU against torch.nn.LSTM, the whole service there, and many resident sessions

Nothing else should run meanwhile. Prints Markdown tables and writes every measurement to a JSON file; of the service
it draws a picture beside that.
"""

import argparse
from pathlib import Path

PEERS = ("mlserver", "torchserve", "kserve")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    what = parser.add_subparsers(
        dest="what", required=True, metavar="serve | engine | million | peers | train | export | cuda"
    )
    serve = what.add_parser("serve", help="against what the service stands on")
    engine = what.add_parser("engine", help="sessions beside each other, and a restart")
    _add_sessions(engine, 100_000, "of the restart")
    million = what.add_parser("million", help="many open sessions, few of them active")
    _add_sessions(million, 1_000_000, "open ones")
    peers = what.add_parser("peers", help="against other servers")
    names = f"of {', '.join(PEERS)} (default: all)"
    peers.add_argument("names", nargs="*", type=_peer, default=PEERS, metavar="NAME", help=names)
    train = what.add_parser("train", help="cells over time, forwards and backwards, on one thread")
    train.add_argument("--tried", action="store_true", help="measure the ways that are not used, too")
    export = what.add_parser("export", help="every recurrence as a graph, on one thread")
    cuda = what.add_parser("cuda", help="on a GPU")
    _add_sessions(cuda, 100_000, "resident ones")
    for one in (serve, engine, million, peers, cuda):
        _add_runs(one, 5)
        one.add_argument("--seconds", type=float, default=3.0, metavar="S", help="of each (default: 3)")
    _add_runs(train, 7)
    for one in (serve, engine, million, peers, train, export, cuda):
        out = Path(f"bench-{one.prog.split()[-1]}.json")
        one.add_argument("--out", type=Path, default=out, metavar="FILE", help=f"JSON (default: {out})")


def _add_sessions(parser: argparse.ArgumentParser, default: int, which: str) -> None:
    text = f"{which} (default: {default})"
    parser.add_argument("--sessions", type=int, default=default, metavar="N", help=text)


def _add_runs(parser: argparse.ArgumentParser, default: int) -> None:
    text = f"pairs of measurements (default: {default})"
    parser.add_argument("--runs", type=int, default=default, metavar="N", help=text)


def run(args: argparse.Namespace) -> int:
    """Measure and report."""
    from cli import bench_service

    runs = {
        "serve": bench_service.serve,
        "engine": bench_service.engine,
        "million": bench_service.million,
        "peers": bench_service.peers,
        "train": _train,
        "export": _export,
        "cuda": _cuda,
    }
    return runs[args.what](args)


def _cuda(args: argparse.Namespace) -> int:
    from cli import bench_cuda

    return bench_cuda.run(args)


def _export(args: argparse.Namespace) -> int:
    from cli import bench_export

    bench_export.run(args.out)
    return 0


def _train(args: argparse.Namespace) -> int:
    from cli import bench_train

    bench_train.run(args.runs, args.out, tried=args.tried)
    return 0


def _peer(name: str) -> str:
    if name not in PEERS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(PEERS)}, got {name!r}")
    return name
