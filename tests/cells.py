"""Every cell, small and with its options, for tests that hold all of them to one rule."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from model.cells import CELLS
from model.cells.gated import Gated

INPUT, HIDDEN = 5, 4

SMALL: dict[str, Callable[[], Gated[Any, Any]]] = {
    "lstm": lambda: CELLS["lstm"](INPUT, HIDDEN),
    "peephole": lambda: CELLS["peephole"](INPUT, HIDDEN),
    "coupled": lambda: CELLS["coupled"](INPUT, HIDDEN),
    "projected": lambda: CELLS["projected"](INPUT, HIDDEN, projection=3),
    "projected, clipped": lambda: CELLS["projected"](
        INPUT, HIDDEN, projection=3, cell_clip=0.4, projection_clip=0.2
    ),
    "highway-time": lambda: CELLS["highway-time"](INPUT, HIDDEN),
    "highway-depth": lambda: CELLS["highway-depth"](INPUT, HIDDEN),
    "multiplicative-brief": lambda: CELLS["multiplicative-brief"](HIDDEN, HIDDEN),
    "multiplicative": lambda: CELLS["multiplicative"](INPUT, HIDDEN),
    "multiplicative, wide": lambda: CELLS["multiplicative"](INPUT, HIDDEN, intermediate=6),
    "gru": lambda: CELLS["gru"](INPUT, HIDDEN),
    "gru, reset before": lambda: CELLS["gru"](INPUT, HIDDEN, reset_after=False),
    "rnn": lambda: CELLS["rnn"](INPUT, HIDDEN),
    "rnn, relu": lambda: CELLS["rnn"](INPUT, HIDDEN, nonlinearity="relu"),
}
"""By what it is; each has more inputs than units where it may."""


def small(name: str) -> Gated[Any, Any]:
    """A cell in double precision, every weight drawn anew: nothing is right because a bias or a peephole is zero."""
    return drawn(SMALL[name]().double())


def drawn(cell: Gated[Any, Any]) -> Gated[Any, Any]:
    """The cell with all its parameters normal."""
    for parameter in cell.parameters():
        nn.init.normal_(parameter)
    return cell


def random_state(cell: Gated[Any, Any], batch: int) -> Any:
    """A state whose segments are normal and ask for gradients."""
    return type(zeros := cell.initial_state(batch))(*(torch.randn_like(z).requires_grad_() for z in zeros))


def random_inputs(cell: Gated[Any, Any], *shape: int) -> Tensor:
    """Inputs `[*shape, I]`, double, that ask for gradients."""
    return torch.randn(*shape, cell.input_size, dtype=torch.float64, requires_grad=True)


def gradients(result: tuple[Tensor, Any], of: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a scalar that weighs every number of the outputs and of the last state differently."""
    output, last = result
    parts = torch.cat([part.flatten() for part in (output, *last)])
    scalar = (parts * torch.linspace(1, 2, len(parts), dtype=parts.dtype)).sum()
    return dict(zip(of, torch.autograd.grad(scalar, list(of.values())), strict=True))


def variables(cell: Gated[Any, Any], x: Tensor, state: Any) -> dict[str, Tensor]:
    """Everything that a run depends on, by name."""
    return {"x": x, **state._asdict(), **dict(cell.named_parameters())}
