"""A picture of the ratios: where each stands, its spread, and where it is to be."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no screen is needed

from matplotlib import pyplot as plt

from bench.rows import Ratio

REACHED, MISSED = "#2a7f62", "#b5482f"


def draw(ratios: Sequence[Ratio], title: str, file: Path) -> None:
    """Draw one line a ratio: a dot for the median, a bar for the spread, a mark for what is to be reached.

    Args:
        ratios: What was measured.
        title: The machine, for one.
        file: Where the picture goes; its suffix says which kind.
    """
    figure, axes = plt.subplots(figsize=(9, 0.6 * len(ratios) + 1.6), layout="constrained")
    for place, ratio in enumerate(reversed(ratios)):
        colour = REACHED if ratio.reached else MISSED
        axes.plot([min(ratio.runs), max(ratio.runs)], [place, place], color=colour, linewidth=5, alpha=0.4)
        axes.plot(ratio.median, place, "o", color=colour, markersize=8)
        axes.plot(ratio.aim.bound, place, "|", color="black", markersize=18)
        told = f" {ratio.median:.2f}, to reach {ratio.aim}"
        axes.text(1, place, told, color=colour, va="center", transform=axes.get_yaxis_transform())
    labels = [f"{ratio.row}\n{ratio.figure} / {ratio.against}" for ratio in reversed(ratios)]
    axes.set_yticks(range(len(ratios)), labels, fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("Carousel / baseline; dot: median, bar: spread of all runs, black mark: to reach")
    axes.set_title(title, fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(file, dpi=130)
    plt.close(figure)
