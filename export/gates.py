"""The one place where gates change their order."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from export.draft import as_float32
from model.cells.gated import Gated


def in_order(cell: Gated[Any, Any], weight: Tensor, order: Sequence[str]) -> NDArray[np.float32]:
    """Put the gates' blocks of a weight into another order.

    Args:
        cell: Knows the order that the blocks have.
        weight: Its `weight_x`, `weight_h` or `bias`, `[G H, ...]`.
        order: Names of gates. A minus before a name negates the block: that gate then is 1 minus the named one, as
            sigmoid(-z) = 1 - sigmoid(z).

    Returns:
        `[G' H, ...]`, a block for each name in `order`.
    """
    blocks = {gate: as_float32(block) for gate, block in cell.blocks(weight).items()}
    return np.concatenate([-blocks[gate[1:]] if gate.startswith("-") else blocks[gate] for gate in order])
