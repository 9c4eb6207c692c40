"""The numbers of all ports of a step side by side, so that one array stands for what goes in or comes out.

Axes: B batch, T time, n all numbers of a step.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.contract import Port

Ports = tuple[Port, ...]


def is_alone(ports: Ports) -> bool:
    """Whether there is one port of one number a step, such as a token: its array `[B, T]` is left as it is."""
    return len(ports) == 1 and ports[0].shape == ()


def packed(ports: Ports, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """The arrays `[B, T, *shape]` of all ports as one `[B, T, n]`."""
    if is_alone(ports):
        return arrays[ports[0].name]
    return np.concatenate(
        [arrays[port.name].reshape(*arrays[port.name].shape[:2], -1) for port in ports], axis=-1
    )


def unpacked(ports: Ports, array: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """What `packed` put together, each of its port's type."""
    if is_alone(ports):
        return {ports[0].name: array}
    cuts = np.cumsum([port.size for port in ports])[:-1]
    parts = zip(ports, np.split(array, cuts, axis=-1), strict=True)
    return {
        port.name: part.reshape(*array.shape[:2], *port.shape).astype(port.dtype, copy=False)
        for port, part in parts
    }
