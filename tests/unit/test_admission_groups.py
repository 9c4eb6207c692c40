"""Chunks that are read in one turn of the loop are taken in together, and it makes no difference to any of them."""

import random

import numpy as np
import pytest

from service import rules
from service.admission import Admission
from service.errors import (
    IndexUnexpectedError,
    InvalidInputError,
    QueueFullError,
    ServiceError,
    SessionClosedError,
)
from service.kept import WINDOW_CHUNKS
from tests.fakes import Answer, Caller, Harness, SessionView, sequential

HISTORIES = 25
EVENTS = 40


def cohorts(h: Harness) -> list[tuple[int, int]]:
    """Members and steps of each queued cohort."""
    return [(len(cohort), cohort.length) for cohort in h.engine.queue]


# -- what becomes one cohort --------------------------------------------------------------------------------------


def test_frames_of_one_turn_become_one_cohort_and_nothing_is_admitted_before_the_turn_ends() -> None:
    h = Harness()
    sessions = [h.open() for _ in range(5)]
    callers = h.offer_frame([(session, 0, [k], 0) for k, session in enumerate(sessions[:3])])
    callers += h.offer_frame([(session, 0, [k], 0) for k, session in enumerate(sessions[3:], 3)])
    assert h.engine.offered
    assert h.engine.queue.chunks == 0
    h.start_run()
    assert not h.engine.offered
    assert cohorts(h) == [(5, 1)]
    h.settle()
    assert [caller.answer for caller in callers] == [[k] for k in range(5)]
    assert len(h.backend.runs) == 1


def test_a_cohort_is_of_one_length_and_no_larger_than_a_batch() -> None:
    h = Harness(batch=3)
    sessions = [h.open() for _ in range(9)]
    chunks = [[k] * (1 if k < 7 else 2) for k in range(9)]
    callers = h.offer_frame([(s, 0, chunk, 0) for s, chunk in zip(sessions, chunks, strict=True)])
    h.engine.admit_offered()
    assert cohorts(h) == [(3, 1), (3, 1), (1, 1), (2, 2)]
    h.settle()
    assert [caller.answer for caller in callers] == [sequential(chunk) for chunk in chunks]


def test_chunks_that_wait_for_different_cohorts_are_in_different_ones() -> None:
    h = Harness()
    a, b, c = [h.open() for _ in range(3)]
    h.offer_frame([(a, 0, [1], 0), (b, 0, [2], 0)])
    h.start_run()
    h.offer_frame([(a, 1, [1], 0), (b, 1, [2], 0), (c, 0, [3], 0)])
    h.engine.admit_offered()
    assert sorted(cohorts(h)) == [(1, 1), (2, 1), (2, 1)]
    h.settle()
    assert [session.next_index for session in (a, b, c)] == [2, 2, 1]


def test_chunks_of_one_session_in_one_frame_run_in_order() -> None:
    h = Harness()
    session, other = h.open(), h.open()
    values = [(session, 0, [1], 0), (other, 0, [7], 0), (session, 1, [2, 3], 0), (session, 3, [4], 0)]
    callers = h.offer_frame([(one, first, list(chunk), ack) for one, first, chunk, ack in values])
    h.settle()
    assert [x for k in (0, 2, 3) for x in callers[k].answer] == sequential([1, 2, 3, 4])
    assert callers[1].answer == [7]


def test_what_is_wrong_with_one_chunk_of_a_group_is_told_to_its_caller_and_the_others_go_on() -> None:
    h = Harness()
    sessions = [h.open() for _ in range(6)]
    sessions[4].end(SessionClosedError)
    gap, nan = (sessions[1], 3, [1.0], 0), (sessions[2], 0, [float("nan")], 0)
    early = (sessions[3], 0, [1.0], 5)
    fine = [(sessions[k], 0, [float(k)], 0) for k in (0, 5)]
    callers = h.offer_frame([fine[0], gap, nan, early, (sessions[4], 0, [1.0], 0), fine[1]])
    h.settle()
    assert [callers[k].answer for k in (0, 5)] == [[0], [5]]
    kinds = [IndexUnexpectedError, InvalidInputError, InvalidInputError, SessionClosedError]
    assert [type(caller.error) for caller in callers[1:5]] == kinds
    assert h.model.rows.used == 2


@pytest.mark.parametrize("index", [1 << 63, (1 << 64) - 1])
def test_an_index_of_64_bits_harms_nobody_else(index: int) -> None:
    h = Harness()
    bad, worse, good = [h.open() for _ in range(3)]
    callers = h.offer_frame([(bad, index, [1], 0), (worse, 0, [1], index), (good, 0, [3], 0)])
    h.settle()
    assert isinstance(callers[0].error, IndexUnexpectedError)
    assert callers[0].error.expected_index == 0
    assert isinstance(callers[1].error, InvalidInputError)
    assert callers[2].answer == [3]


def test_a_frame_of_more_chunks_than_the_queue_takes_is_taken_as_far_as_there_is_room() -> None:
    h = Harness(queue_chunks=3)
    callers = h.offer_frame([(h.open(), 0, [k], 0) for k in range(5)])
    h.settle()
    assert [caller.answer for caller in callers[:3]] == [[0], [1], [2]]
    assert all(isinstance(caller.error, QueueFullError) for caller in callers[3:])
    assert h.engine.queue.chunks == 0


# -- callers ------------------------------------------------------------------------------------------------------


def test_a_frame_whose_caller_leaves_before_the_turn_ends_is_not_admitted() -> None:
    h = Harness()
    session, other = h.open(), h.open()
    left, stays = h.offer(session, 0, [1]), h.offer(other, 0, [2])
    left.leave()
    h.settle()
    assert left.outcomes == []
    assert stays.answer == [2]
    assert session.next_index == 0
    assert h.metric("carousel_chunks_total", model="fake/1") == 1


def test_leaving_takes_the_whole_frame_back_and_no_chunk_of_another_frame_in_the_same_cohort() -> None:
    h = Harness()
    sessions = [h.open() for _ in range(4)]
    left = h.offer_frame([(session, 0, [1], 0) for session in sessions[:2]])
    stays = h.offer_frame([(session, 0, [k], 0) for k, session in enumerate(sessions[2:])])
    h.engine.admit_offered()
    assert cohorts(h) == [(4, 1)]
    left[0].leave()
    assert h.engine.queue.chunks == 2
    h.settle()
    assert [caller.outcomes for caller in left] == [[], []]
    assert [caller.answer for caller in stays] == [[0], [1]]
    assert [session.next_index for session in sessions] == [0, 0, 1, 1]
    assert h.model.rows.used == 2


def test_a_caller_that_has_left_remembers_no_chunk() -> None:
    h = Harness()
    caller = h.send(h.open(), 0, [1])
    assert caller.frame.waits
    caller.leave()
    # A cohort knows its callers: a circle would stay until the garbage collector comes.
    assert caller.frame.waits == []


def test_a_chunk_remembers_no_caller_that_joined_and_left() -> None:
    h = Harness()
    session = h.open()
    stays = h.send(session, 0, [5])
    for _ in range(200):
        h.send(session, 0, [5]).leave()
    (cohort,) = h.engine.queue
    assert len(cohort.joined[0]) <= 1
    h.settle()
    assert stays.answer == [5]
    assert h.metric("carousel_joins_total") == 200


# -- one by one -----------------------------------------------------------------------------------------------------


class Story:
    """A random history without failing runs; how chunks are admitted is all that two of the same seed differ in."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.h = Harness(
            batch=self.random.choice([2, 8]),
            queue_chunks=self.random.choice([6, 100]),
        )
        self.sessions = [self.h.open(f"s{k}") for k in range(4)]
        self.sent: list[list[tuple[int | None, list[float]]]] = [[] for _ in self.sessions]
        self.acknowledged = [0] * len(self.sessions)
        self.callers: list[Caller] = []

    def run(self) -> list[object]:
        for _ in range(EVENTS):
            before = len(self.callers)
            for _ in range(self.random.randint(1, 3)):
                self.frame()
            if self.random.random() < 0.05 and not self.h.jobs:
                self.end(self.random.randrange(len(self.sessions)))
            self.h.engine.admit_offered()
            # Only what is certain not to have started: that depends on what ran with what.
            if self.random.random() < 0.1:
                self.random.choice(self.callers[before:]).leave()
            self.h.start_run()
            if self.random.random() < 0.7:
                self.h.settle()
        self.h.settle()
        return [*map(told, self.callers), *map(self.standing, range(len(self.sessions)))]

    def frame(self) -> None:
        tails = [session.tail for session in self.sessions]
        chosen = self.random.choices(range(len(self.sessions)), k=self.random.randint(1, 6))
        numbered, chunks = self.random.random() < 0.9, []
        for k in chosen:
            first, values = self.chunk(k, tails[k]) if numbered else (None, [1.0])
            tails[k] += len(values) if first in (None, tails[k]) else 0
            self.sent[k].append((first, values))
            chunks.append((self.sessions[k], first, values, self.acknowledgement(k)))
        self.callers += self.h.offer_frame(chunks)

    def chunk(self, k: int, tail: int) -> tuple[int, list[float]]:
        dice = self.random.random()
        if dice < 0.15 and self.sent[k]:
            first, values = self.random.choice(self.sent[k][-6:])
            if first is not None and first >= self.acknowledged[k]:
                return first, values
        if dice > 0.95:
            return tail + 2, [1.0]
        if dice > 0.92:
            return tail, [float("nan")]
        return tail, [float(self.random.randrange(9)) for _ in range(self.random.choice([1, 1, 1, 2, 5]))]

    def acknowledgement(self, k: int) -> int:
        dice = self.random.random()
        if dice < 0.4:
            self.acknowledged[k] = self.sessions[k].next_index
        return self.sessions[k].tail + 9 if dice > 0.97 else self.acknowledged[k]

    def end(self, k: int) -> None:
        self.h.engine.end(self.sessions[k].slot, SessionClosedError)
        self.sessions[k] = self.h.open(f"s{k} again {len(self.callers)}")
        self.sent[k], self.acknowledged[k] = [], 0

    def standing(self, k: int) -> object:
        session: SessionView = self.sessions[k]
        # What a chunk acknowledges counts at its commit, or at once if it is decided alone.
        kept = [
            (first, n, digest) for first, n, digest, *_ in session.kept if first + n > self.acknowledged[k]
        ]
        return session.next_index, session.tail, kept, float(self.h.backend.rows[session.row, 0])


def told(caller: Caller) -> object:
    return [(type(o), str(o)) if isinstance(o, ServiceError) else o for o in caller.outcomes]


def test_taking_chunks_in_together_comes_to_the_same_end_as_deciding_each_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together = [Story(seed).run() for seed in range(HISTORIES)]
    monkeypatch.setattr(Admission, "_plain", lambda *_: np.empty(0, np.int64))
    for seed in range(HISTORIES):
        assert Story(seed).run() == together[seed], f"Story({seed})"
    outcomes = {name for ends in together for outcome in ends for name in kinds(outcome)}
    assert {"Answer", "IndexUnexpectedError", "InvalidInputError", "QueueFullError"} <= outcomes
    assert {"WindowFullError", "SessionClosedError"} <= outcomes


def kinds(outcome: object) -> list[str]:
    if not isinstance(outcome, list):
        return []
    return [o[0].__name__ if isinstance(o[0], type) else "Answer" for o in outcome]


# -- the bound on what is kept of all sessions ----------------------------------------------------------------------


def test_answers_of_all_sessions_together_are_bounded_and_refused_before_anything_runs() -> None:
    h = Harness(kept_bytes=16)  # four steps
    sessions = [h.open() for _ in range(5)]
    for session in sessions[:4]:
        h.send(session, 0, [1])
    refused = h.send(sessions[4], 0, [1])
    assert isinstance(refused.error, QueueFullError)
    assert "16 bytes" in str(refused.error)
    assert "at most 16" in str(refused.error)
    h.settle()
    assert isinstance(h.send(sessions[4], 0, [1]).error, QueueFullError)
    assert sessions[4].next_index == 0
    assert h.send(sessions[4], None, [1]).outcomes == [], "it keeps nothing"


def test_answers_that_are_still_to_be_made_count_with_all_their_steps() -> None:
    h = Harness(kept_bytes=16, run_steps=1)
    one, other = h.open(), h.open()
    h.send(one, 0, [1, 2, 3])
    assert isinstance(h.send(other, 0, [1, 2]).error, QueueFullError)
    assert h.send(other, 0, [1]).outcomes == []
    h.settle()
    assert h.engine.kept.total_bytes == 16
    assert h.engine.queue.promised_bytes == 0


@pytest.mark.parametrize("how", ["acknowledged", "acknowledged earlier", "closed", "failed", "taken back"])
def test_what_is_kept_no_longer_makes_room_for_others(how: str) -> None:
    h = Harness(kept_bytes=16)
    one, other = h.open(), h.open()
    h.backend.fail_next = how == "failed"
    caller = h.send(one, 0, [1, 2, 3])
    if how != "taken back":
        h.settle()
    if how == "acknowledged":
        h.send(one, 3, [4], acknowledged=3)
        h.settle()
    elif how == "acknowledged earlier":
        # The answer that was asked for with it is the only one that is still to be kept.
        assert isinstance(h.send(one, 9, [4], acknowledged=3).error, IndexUnexpectedError)
    elif how == "closed":
        one.end(SessionClosedError)
    elif how == "taken back":
        caller.leave()
    sent = h.send(other, 0, [5, 6, 7])
    h.settle()
    assert sent.answer == sequential([5, 6, 7])


def test_answers_that_many_sessions_have_acknowledged_never_stand_in_the_way_of_another_session() -> None:
    h = Harness(kept_bytes=4 * (WINDOW_CHUNKS + 1))
    one, other = h.open(), h.open()
    for index in range(WINDOW_CHUNKS):
        h.send(one, index, [1], acknowledged=index)
        h.settle()
    assert len(one.kept) == 1
    for index in range(3):
        sent = h.send(other, index, [index])
        h.settle()
        assert sent.outcomes
        assert sent.answer


def test_where_there_are_many_sessions_room_is_made_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "SCAN_SLOTS", 2)
    h = Harness(kept_bytes=16)
    *others, last = [h.open() for _ in range(6)]
    h.send(last, 0, [1, 2, 3])
    h.settle()
    h.send(last, 3, [4], acknowledged=3)
    h.settle()
    assert h.engine.kept.total_bytes == 16
    told = []
    for session in others[:3]:
        told += [caller.outcomes for caller in h.offer_frame([(session, 0, [5], 0)])]
        h.settle()
    # Each attempt looks at two sessions more, twice where it is decided alone.
    assert [type(outcomes[0]) for outcomes in told] == [QueueFullError, Answer, Answer]
