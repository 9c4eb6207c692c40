"""Steps of the fake model "sum", and waiting for what they lead to."""

import asyncio
from collections.abc import Callable

import numpy as np

from carousel.client import AsyncSession


def pair(value: float, steps: int = 1) -> np.ndarray:
    return np.full((steps, 2), value, np.float32)


async def total(session: AsyncSession, value: float) -> float:
    """Make one step of model "sum" and return the running sum."""
    return float((await session.step(pair(value)))["y"][-1, 0])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)
