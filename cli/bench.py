"""Measure the service against what it stands on, as ratios taken in one run.

carousel bench serve   rate, processor time and latency against a bare gRPC echo and against bare runs of the model

Nothing else should run meanwhile. Prints a Markdown table, writes every measurement to a JSON file and
draws a picture beside it.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("what", choices=("serve",), help="what to measure")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="pairs of measurements (default: 5)")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="of each (default: 3)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("bench-serve.json"),
        metavar="FILE",
        help="JSON (default: bench-serve.json)",
    )


def run(args: argparse.Namespace) -> int:
    """Measure every row and report."""
    import tempfile

    from bench import rows
    from bench.plot import draw
    from bench.report import machine, table, write_json
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
    write_json(ratios, args.out)
    draw(ratios, ", ".join(str(part) for part in machine().values()), args.out.with_suffix(".png"))
    print(", ".join(f"{key} {value}" for key, value in machine().items()), end="\n\n")
    print(table(ratios))
    return 0


def _write_model(repository: Path, **sizes: int) -> None:
    from export.bare import bare_lstm

    file = repository / "bench" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(bare_lstm(**sizes).SerializeToString())
