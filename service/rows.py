"""Who owns which state row. The contents of rows belong to the backend, their ownership to the event loop. Pure."""

INITIAL_ROW = 0
"""Shared by every session that has made no step; never written, never freed."""


class RowAllocator:
    """Hands out rows 1 to capacity - 1. The row freed last is given first: its memory is warm."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._fresh = INITIAL_ROW + 1
        self._freed: list[int] = []

    @property
    def used(self) -> int:
        """Number of rows that are handed out."""
        return self._fresh - 1 - len(self._freed)

    def take(self) -> int:
        """A row that nobody else owns. Its content is undefined.

        Raises:
            IndexError: all rows are taken, which admission must have prevented.
        """
        if self._freed:
            return self._freed.pop()
        if self._fresh == self.capacity:
            raise IndexError(f"all {self.capacity} rows are taken: this is a bug in admission")
        self._fresh += 1
        return self._fresh - 1

    def give(self, row: int) -> None:
        """Give a row back. Giving the initial row back changes nothing."""
        if row != INITIAL_ROW:
            self._freed.append(row)
