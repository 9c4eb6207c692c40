"""Pictures of one look: quiet, as SVG, the same bytes for the same numbers."""

import io
import re
from contextlib import AbstractContextManager
from typing import Any, cast

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure

INK, FAINT = "#333333", "#d9d9d9"
COLOURS = ("#1f6f8b", "#c8553d", "#6a994e", "#7d5ba6", "#b08900", "#5c677d")
"""Told apart by most people who are colour-blind, and in print."""

_STYLE = {
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "font.family": "sans-serif",
    # The first comes with matplotlib and gives the widths to reckon with; it is as wide as any that stands in for it.
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": 9,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "carousel",
    "text.color": INK,
    "xtick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.color": INK,
    "ytick.labelsize": 8.5,
}
_WIDTH = 7.4
"""Inches; 72 points each, so that text of 9 points is 9 pixels high and more on a page 700 wide."""


def style() -> AbstractContextManager[Any]:
    """While this is open, matplotlib draws as we do; it reads most of its settings only when it draws."""
    return cast(AbstractContextManager[Any], matplotlib.rc_context(_STYLE))


def canvas(rows: int = 1, columns: int = 1, *, height: float = 2.7, **options: Any) -> tuple[Any, Any]:
    """A figure and its axes `[rows, columns]`.

    Args:
        rows: Of axes.
        columns: Of axes.
        height: Inches, of one row.
        options: As `Figure.subplots` takes them.
    """
    figure = Figure(figsize=(_WIDTH, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def side_by_side(count: int, *, height: float = 2.7, **options: Any) -> tuple[Any, list[Any]]:
    """A figure and so many axes, three in a row at most."""
    columns = min(count, 3)
    figure, grid = canvas(-(-count // columns), columns, height=height, **options)
    axes = list(grid.flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def svg(figure: Any) -> str:
    """The picture as an SVG element, without what comes before it in a file of its own."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    drawn = file.getvalue()
    return re.sub(r"[ \t]+$", "", drawn[drawn.index("<svg") :], flags=re.MULTILINE)
