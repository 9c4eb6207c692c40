"""The chains of queued chunks, against lists of what each session has queued."""

import random

import numpy as np
import pytest

from service.cohort import Cohort
from service.queue import ChunkQueue
from service.sessions import SessionTable
from tests.cohorts import cohort, table_of

STEP_BYTES = [4, 10]
SESSIONS = 6
HISTORIES = 60
EVENTS = 80


def queue_of(sessions: int = 4) -> tuple[SessionTable, ChunkQueue]:
    table = table_of(sessions)
    return table, ChunkQueue(table, STEP_BYTES)


def put(
    queue: ChunkQueue, table: SessionTable, slots: list[int], length: int = 1, **fields: object
) -> Cohort:
    """Queue the next chunk of some sessions whose last chunks are all in one cohort, or in none."""
    (last,) = set(table.job[slots].tolist())
    predecessor = queue.cohort(last)
    firsts = table.tail[slots].tolist()
    number = queue.next_number()
    one = cohort(slots, length, number=number, firsts=firsts, predecessor=predecessor, **fields)  # type: ignore[arg-type]
    queue.put(one, 2.5)
    return one


def test_queued_chunks_move_the_columns_of_their_sessions() -> None:
    table, queue = queue_of()
    put(queue, table, [0, 2], 3)
    last = put(queue, table, [2], 2, numbered=[False])
    assert table.tail[:3].tolist() == [3, 0, 5]
    assert table.job[:3].tolist() == [1, 0, last.number]
    assert table.window_chunks[:3].tolist() == [1, 0, 1]
    assert table.window_bytes[:3].tolist() == [12, 0, 12]
    assert table.used_us[:3].tolist() == [2_500_000, 0, 2_500_000]
    assert queue.chunks == 3
    assert queue.promised_bytes == 2 * 3 * 4


def test_the_chain_of_a_session_passes_all_its_queued_chunks_in_order() -> None:
    table, queue = queue_of()
    first = put(queue, table, [0, 1])
    second = put(queue, table, [1])
    third = put(queue, table, [1], 2)
    assert queue.chain(0) == [(first, 0)]
    assert queue.chain(1) == [(first, 1), (second, 0), (third, 0)]
    assert queue.chain(2) == []
    assert list(queue) == [first, second, third]


def test_a_cohort_that_is_done_lets_go_those_that_wait_for_it() -> None:
    table, queue = queue_of()
    first = put(queue, table, [0, 1, 2])
    behind = [put(queue, table, [1]), put(queue, table, [0, 2])]
    last = put(queue, table, [1])
    queue.commit(first)
    assert [one.predecessor for one in (*behind, last)] == [None, None, behind[0]]
    assert queue.cohort(first.number) is None
    assert queue.chain(1) == [(behind[0], 0), (last, 0)]
    assert queue.chunks == 4


def test_the_end_of_a_chain_is_dropped_as_if_it_had_never_been_queued() -> None:
    table, queue = queue_of()
    first = put(queue, table, [0, 1])
    second = put(queue, table, [0, 1], 2)
    third = put(queue, table, [0], numbered=[False])
    queue.drop(0, queue.chain(0)[1:])
    assert table.tail[:2].tolist() == [1, 3]
    assert table.job[:2].tolist() == [first.number, second.number]
    assert table.window_chunks[:2].tolist() == [1, 2]
    assert table.window_bytes[:2].tolist() == [4, 12]
    assert queue.chain(0) == [(first, 0)]
    assert [second.is_dropped(member) for member in range(2)] == [True, False]
    assert queue.cohort(third.number) is None, "nobody of it is left"
    assert queue.chunks == 3
    assert queue.promised_bytes == 4 + 4 + 8


def test_dropping_everything_leaves_an_empty_queue() -> None:
    table, queue = queue_of()
    for _ in range(3):
        put(queue, table, [0, 1], 2)
    for slot in (0, 1):
        queue.drop(slot, queue.chain(slot))
    assert list(queue) == []
    assert queue.chunks == queue.promised_bytes == 0
    columns = (table.tail, table.job, table.window_chunks, table.window_bytes)
    assert [column[:2].tolist() for column in columns] == [[0, 0]] * 4


def test_a_cohort_of_which_nobody_is_left_no_longer_waits_for_the_one_before() -> None:
    table, queue = queue_of()
    first = put(queue, table, [0, 1])
    second = put(queue, table, [0])
    queue.drop(0, [(second, 0)])
    assert first.successors == []
    queue.commit(first)
    assert list(queue) == []


def test_a_chunk_of_a_session_that_is_gone_touches_nobody_elses_columns() -> None:
    table, queue = queue_of()
    one = put(queue, table, [0, 1])
    table.job[0] = table.tail[0] = table.window_chunks[0] = 77  # the slot is another session's by now
    queue.abandon(one, 0)
    assert (table.job[0], table.tail[0], table.window_chunks[0]) == (77, 77, 77)
    assert queue.chunks == 1
    assert queue.promised_bytes == 4
    assert queue.cohort(one.number) is one


def test_no_number_is_given_twice_and_none_is_0() -> None:
    _, queue = queue_of()
    numbers = [queue.next_number() for _ in range(5)]
    assert len(set(numbers)) == 5
    assert 0 not in numbers
    assert queue.cohort(0) is None


class History:
    """Random chunks put, done and dropped, beside one list of (first, length, numbered) a session."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.table = table_of(SESSIONS, [slot % 2 for slot in range(SESSIONS)])
        self.queue = ChunkQueue(self.table, STEP_BYTES)
        self.lists: list[list[tuple[int, int, bool]]] = [[] for _ in range(SESSIONS)]
        self.kept = [[0, 0] for _ in range(SESSIONS)]

    def run(self) -> None:
        for _ in range(EVENTS):
            self.random.choices([self.put, self.commit, self.drop], [5, 3, 1])[0]()
            self.check()

    def put(self) -> None:
        model = self.random.randrange(2)
        of_model = range(model, SESSIONS, 2)
        job = self.random.choice(self.table.job[of_model].tolist())
        slots = [slot for slot in of_model if self.table.job[slot] == job and self.random.random() < 0.7]
        if not slots:
            return
        length = self.random.randint(1, 3)
        numbered = [self.random.random() < 0.8 for _ in slots]
        for slot, named in zip(slots, numbered, strict=True):
            self.lists[slot].append((int(self.table.tail[slot]), length, named))
        put(self.queue, self.table, slots, length, model=model, numbered=numbered)

    def commit(self) -> None:
        ready = [one for one in self.queue if one.predecessor is None]
        if not ready:
            return
        one = self.random.choice(ready)
        one.shrink()
        for slot in one.slots.tolist():
            first, length, named = self.lists[slot].pop(0)
            self.kept[slot][0] += named
            self.kept[slot][1] += named * length * STEP_BYTES[one.model]
            assert first == one.firsts[one.member(slot)]
        self.table.job[one.slots] *= self.table.job[one.slots] != one.number
        later = list(one.successors)
        self.queue.commit(one)
        assert all(other.predecessor is None for other in later)

    def drop(self) -> None:
        slot = self.random.choice([slot for slot in range(SESSIONS) if self.lists[slot]] or [0])
        links = self.queue.chain(slot)
        if links:
            start = self.random.randrange(len(links))
            self.queue.drop(slot, links[start:])
            del self.lists[slot][start:]

    def check(self) -> None:
        for slot, expected in enumerate(self.lists):
            chain = self.queue.chain(slot)
            assert [(one.firsts[k], one.length, one.is_numbered(k)) for one, k in chain] == expected
            assert (self.table.job[slot] == 0) == (not expected)
            size = STEP_BYTES[slot % 2]
            window = [
                self.kept[slot][0] + sum(named for *_, named in expected),
                self.kept[slot][1] + sum(named * length * size for _, length, named in expected),
            ]
            assert [self.table.window_chunks[slot], self.table.window_bytes[slot]] == window
        assert self.queue.chunks == sum(map(len, self.lists))
        promised = [
            named * length * STEP_BYTES[slot % 2]
            for slot, chunks in enumerate(self.lists)
            for _, length, named in chunks
        ]
        assert self.queue.promised_bytes == sum(promised)
        assert all(np.any(~one.dropped) for one in self.queue if one.dropped is not None)


@pytest.mark.parametrize("block", range(3))
def test_every_history_of_the_queue_is_that_of_one_list_a_session(block: int) -> None:
    for seed in range(block * HISTORIES // 3, (block + 1) * HISTORIES // 3):
        History(seed).run()
