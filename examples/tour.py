"""Make the pictures of docs/understanding-lstms.md: about a minute on one core.

python -m examples.tour
python -m examples.tour counting half-life
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from examples import tour_gradients, tour_memory, tour_rest
from model.diagnostics.pictures import style, svg

FOLDER = Path("docs/pictures")

PICTURES: dict[str, Callable[[], Any]] = {
    "highway": tour_gradients.highway,
    "direct-and-total": tour_gradients.direct_and_total,
    "half-life": tour_gradients.half_life,
    "learning": tour_gradients.learning,
    "capacity": tour_memory.capacity,
    "information": tour_memory.information,
    "counting": tour_memory.counting,
    "transformer": tour_memory.transformer,
    "closed-form": tour_rest.closed_form,
    "flip-flop": tour_rest.flip_flop,
}
"""What draws each; all draw the same whenever they are called."""


def main(names: list[str]) -> None:
    """Draw these, or all."""
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in names or PICTURES:
        if name not in PICTURES:
            sys.exit(f"no picture {name}: expected one of {', '.join(PICTURES)}")
        file = FOLDER / f"{name}.svg"
        file.write_text(draw(name), encoding="utf-8")
        print(f"{file} ({file.stat().st_size / 1000:.0f} kB)", flush=True)


def draw(name: str) -> str:
    """One picture as SVG."""
    torch.manual_seed(0)
    with style():
        return svg(PICTURES[name]())


if __name__ == "__main__":
    main(sys.argv[1:])
