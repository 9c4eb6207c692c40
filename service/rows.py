"""Who owns which row of an arena. The contents belong to others, the ownership to the event loop. Pure."""

import numpy as np
from numpy.typing import NDArray

INITIAL_ROW = 0
"""The state row shared by every session that has made no step; never written, never freed."""

Rows = NDArray[np.int64]


class RowAllocator:
    """Hands out rows `first` to capacity - 1. The rows freed last are given first: their memory is warm."""

    def __init__(self, capacity: int, first: int = INITIAL_ROW + 1) -> None:
        self.capacity = capacity
        self._first = self._fresh = first
        self._stack = np.empty(capacity, np.int64)  # its pages cost nothing until they are used
        self._freed = 0

    @property
    def used(self) -> int:
        """Number of rows that are handed out."""
        return self._fresh - self._first - self._freed

    @property
    def free(self) -> int:
        """Number of rows that can be taken."""
        return self.capacity - self._fresh + self._freed

    def take(self, count: int) -> Rows:
        """Rows that nobody else owns. Their content is undefined.

        Raises:
            IndexError: there are not as many, which admission must have prevented.
        """
        if count <= self._freed:
            self._freed -= count
            return self._stack[self._freed : self._freed + count].copy()
        fresh = count - self._freed
        if self._fresh + fresh > self.capacity:
            raise IndexError(f"{count} of {self.capacity} rows are not free: this is a bug in admission")
        rows = np.concatenate([self._stack[: self._freed], np.arange(self._fresh, self._fresh + fresh)])
        self._freed, self._fresh = 0, self._fresh + fresh
        return rows

    def give(self, rows: NDArray[np.int64 | np.int32]) -> None:
        """Give rows back, each of them once. Rows below `first` belong to everybody and are passed over."""
        if self._first and np.count_nonzero(rows) < len(rows):
            rows = rows[rows >= self._first]
        self._stack[self._freed : self._freed + len(rows)] = rows
        self._freed += len(rows)
