"""What a report is made of."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Chapter:
    """One question to the model, and what was found."""

    name: str
    """Its key in `report.json` and its anchor on the page."""
    title: str
    look_for: str
    """What to look for in the picture, in one sentence."""
    numbers: dict[str, Any]
    """As JSON can hold them."""
    picture: str = ""
    """An SVG element; empty where there is nothing to draw."""
    how: str = ""
    """How the numbers were got and what they rest on, with sources."""
    table: tuple[tuple[str, ...], ...] = ()
    """Rows of text, the heading first."""
