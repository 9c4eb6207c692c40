"""The queued chunks of every session, as a chain of cohorts. Pure.

Each cohort waits for one other at most: the one that holds the chunks before its own. Following the predecessors from a
session's last cohort therefore passes all its queued chunks, and the number of a cohort is all that a session keeps.
"""

from collections.abc import Iterator

from service.cohort import Cohort
from service.sessions import SessionTable, micro

Link = tuple[Cohort, int]
"""A cohort and the position of a session's chunk in it."""


class ChunkQueue:
    """Cohorts between admission and their end.

    Args:
        table: Its columns `tail`, `job`, `window_chunks` and `window_bytes` follow the queue.
        step_bytes: Bytes of the answer to one step, of each model; the list may grow.
    """

    def __init__(self, table: SessionTable, step_bytes: list[int]) -> None:
        self.chunks = 0
        """Chunks between admission and commit."""
        self.promised_bytes = 0
        """Bytes of the answers that are still to be made and will be kept."""
        self._table = table
        self.step_bytes = step_bytes
        self._cohorts: dict[int, Cohort] = {}
        self._numbers = 0

    def next_number(self) -> int:
        """A number that no cohort had before."""
        self._numbers += 1
        return self._numbers

    def cohort(self, number: int) -> Cohort | None:
        """A cohort that has not ended; None for 0."""
        return self._cohorts.get(number)

    def __iter__(self) -> Iterator[Cohort]:
        return iter(self._cohorts.values())

    def put(self, cohort: Cohort, now: float) -> None:
        """Queue new chunks behind what their sessions have queued."""
        slots, numbered = cohort.slots, cohort.numbered
        self._cohorts[cohort.number] = cohort
        if cohort.predecessor is not None:
            cohort.predecessor.successors.append(cohort)
        size = cohort.length * self.step_bytes[cohort.model]
        table = self._table
        table.tail[slots] = cohort.firsts + cohort.length
        table.job[slots] = cohort.number
        table.used_us[slots] = micro(now)
        table.window_chunks[slots] += 1 if numbered is None else numbered
        table.window_bytes[slots] += size if numbered is None else numbered * size
        self.promised_bytes += size * cohort.names
        self.chunks += len(slots)

    def chain(self, slot: int) -> list[Link]:
        """The queued and running chunks of a session, in order."""
        links = []
        cohort = self._cohorts.get(int(self._table.job[slot]))
        while cohort is not None:
            links.append((cohort, cohort.member(slot)))
            cohort = cohort.predecessor
        return links[::-1]

    def drop(self, slot: int, links: list[Link]) -> None:
        """Take the last chunks of a live session out of the queue.

        Args:
            slot: The session.
            links: The end of its chain.
        """
        table = self._table
        cohort, member = links[0]
        table.tail[slot] = cohort.firsts[member]
        table.job[slot] = 0 if cohort.predecessor is None else cohort.predecessor.number
        for later, position in reversed(links):
            if later.is_numbered(position):
                table.window_chunks[slot] -= 1
                table.window_bytes[slot] -= later.length * self.step_bytes[later.model]
            self.abandon(later, position)

    def abandon(self, cohort: Cohort, member: int) -> None:
        """One chunk less, of a session that need not live any more."""
        cohort.drop(member)
        self.chunks -= 1
        if cohort.is_numbered(member):
            self.promised_bytes -= cohort.length * self.step_bytes[cohort.model]
        if cohort.dropped is not None and cohort.dropped.all():
            if cohort.predecessor is not None:
                cohort.predecessor.successors.remove(cohort)
            self._end(cohort)

    def commit(self, cohort: Cohort) -> None:
        """The chunks of a cohort are done."""
        self.chunks -= len(cohort)
        self.promised_bytes -= cohort.names * cohort.length * self.step_bytes[cohort.model]
        self._end(cohort)

    def _end(self, cohort: Cohort) -> None:
        del self._cohorts[cohort.number]
        for later in cohort.successors:
            later.predecessor = None
