"""What the options of an export say in the contract."""

from typing import Any

from carousel.contract import FORMAT, Arena, Observed
from export.observe import OBSERVED
from export.options import Options

ARENA = Arena(read_rows="read_rows", write_rows="write_rows", finite="finite")


def written_so(options: Options, statistics: tuple[str, ...]) -> dict[str, Any]:
    """Fields of a contract, which says at its end in which format it can be written.

    Args:
        options: How the graph is written.
        statistics: What is observed; nothing: it is not.
    """
    fields: dict[str, Any] = {"format": FORMAT}
    if options.target == "cuda":
        fields |= {"form": "arena", "arena": ARENA, "runs_on": "cuda"}
    if options.single_step:
        fields["max_steps"] = 1
    if options.precision != "fp32":
        fields["precision"] = options.precision
    if options.precision == "int8-dynamic":
        fields["batch_dependent"] = True
    if statistics:
        fields["observed"] = Observed(output=OBSERVED, statistics=statistics)
    return fields
