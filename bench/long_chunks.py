"""Short chunks beside long ones: who takes one step at a time must not wait for who takes a thousand."""

from dataclasses import asdict, replace
from pathlib import Path

from bench.rows import AtMost, Ratio
from bench.run import Load, measure, measure_together, service

SHORT, LONG_STEPS = 63, 1000


def one_streams_long_chunks(models: Path, runs: int, seconds: float) -> list[Ratio]:
    """63 sessions at half of their full rate, with and without a client that streams chunks of 1000 steps."""
    full = Load(1, streams=SHORT, sessions=1, depth=1, seconds=seconds, input_size=64)
    # Two chunks under way: the next one is there when one is done.
    long = Load(1, streams=1, sessions=1, depth=2, seconds=seconds, input_size=64, steps=LONG_STEPS)
    ratios, samples = [], []
    with service(models) as ours:
        short = replace(full, rate=measure(ours, full).steps_per_second / 2)
        for _ in range(runs):
            alone = measure(ours, short)
            beside, chunks = measure_together(ours, [short, long])
            beside = replace(beside, client_cpu=beside.client_cpu + chunks.client_cpu)
            ratios.append(beside.p99_ms / alone.p99_ms)
            samples.append({"ours": asdict(beside), "base": asdict(alone), "long": asdict(chunks)})
    row = f"{SHORT} sessions of 1 step beside one of chunks of {LONG_STEPS}"
    return [Ratio(row, "p99 at half load", "without the long one", AtMost(2), ratios, samples)]
