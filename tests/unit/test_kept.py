"""Kept answers, against a list of blobs for each session."""

import random
from typing import Any

import numpy as np
import pytest

from carousel.contract import Contract, Port
from service.kept import WINDOW_CHUNKS, KeptAnswers, step_bytes_of
from tests.fakes import contract

WIDE = (Port(name="y", dtype="float16", shape=(3, 2)), Port(name="flag", dtype="bool"))
STEP = 3 * 2 * 2 + 1
"""Bytes of the answer to one step."""
LARGEST = np.iinfo(np.int64).max
HISTORIES = 30
EVENTS = 60
SESSIONS = 4


def with_outputs(*ports: Port) -> Contract:
    return contract().model_copy(update={"outputs": ports})


def kept_answers(limit_bytes: int = 1 << 12, sessions: int = SESSIONS) -> KeptAnswers:
    """Model 0 answers two outputs, model 1 four bytes in one."""
    kept = KeptAnswers(sessions, limit_bytes)
    kept.add_model(with_outputs(*WIDE))
    kept.add_model(contract())
    return kept


def some_outputs(count: int, length: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, length, 3, 2)).astype(np.float16), rng.random((count, length)) < 0.5


def keep(kept: KeptAnswers, slots: list[int], ends: list[int], length: int, seed: int = 0) -> tuple[Any, ...]:
    outputs = some_outputs(len(slots), length, seed)
    digests = 100 * np.array(slots) + np.array(ends)
    kept.keep(0, np.array(slots), np.array(ends), length, digests, outputs, str(1 + ends[0] % 3))
    return outputs


def release(kept: KeptAnswers, slots: list[int], acknowledged: list[int]) -> list[list[int]] | None:
    forgotten = kept.release(0, np.array(slots), np.array(acknowledged))
    return None if forgotten is None else [column.tolist() for column in forgotten]


def test_the_answer_to_a_step_has_the_bytes_of_all_outputs() -> None:
    assert step_bytes_of(with_outputs(*WIDE)) == STEP
    assert step_bytes_of(contract()) == 4


@pytest.mark.parametrize("length", [1, 3])
def test_what_was_answered_is_given_again_bit_for_bit(length: int) -> None:
    kept = kept_answers()
    outputs = keep(kept, [2, 0], [5, 9], length)
    for member, (slot, end) in enumerate([(2, 5), (0, 9)]):
        (chunk,) = kept.of(slot, 0)
        assert chunk[:3] == (end - length, length, 100 * slot + end)
        assert kept.outputs(0, chunk) == tuple(output[member].tobytes() for output in outputs)
    assert kept.of(1, 0) == kept.of(3, 0) == []
    assert kept.total_bytes == 2 * length * STEP


def test_outputs_may_be_parts_of_a_larger_run() -> None:
    kept = kept_answers()
    whole = some_outputs(5, 4)
    kept.keep(0, np.array([1]), np.array([1]), 1, np.zeros(1, int), tuple(o[3:4, :1] for o in whole), "1")
    kept.keep(0, np.array([1]), np.array([3]), 2, np.zeros(1, int), tuple(o[1:2, :2] for o in whole), "2")
    single, longer = kept.of(1, 0)
    assert (single.version, longer.version) == ("1", "2")
    assert kept.outputs(0, single) == tuple(output[3, :1].tobytes() for output in whole)
    assert kept.outputs(0, longer) == tuple(output[1, :2].tobytes() for output in whole)


def test_answers_of_single_and_of_many_steps_stand_in_order_and_what_was_acknowledged_is_not_shown() -> None:
    kept = kept_answers()
    for end, length in ((1, 1), (4, 3), (5, 1), (7, 2)):
        keep(kept, [3], [end], length)
    assert [(chunk.first, chunk.length) for chunk in kept.of(3, 0)] == [(0, 1), (1, 3), (4, 1), (5, 2)]
    assert [chunk.first for chunk in kept.of(3, 3)] == [1, 4, 5], "step 3 is a part of the second"
    assert [chunk.first for chunk in kept.of(3, 4)] == [4, 5]
    assert kept.of(3, 7) == []


def test_forgetting_tells_how_much_was_forgotten_of_each_session() -> None:
    kept = kept_answers()
    keep(kept, [0, 1], [1, 1], 1)
    keep(kept, [0, 1, 2], [3, 3, 2], 2)
    assert release(kept, [0, 1, 2, 3], [0, 0, 1, LARGEST]) is None
    assert release(kept, [1, 0, 2], [1, 3, 1]) == [[1, 2, 0], [STEP, 3 * STEP, 0]]
    assert [len(kept.of(slot, 0)) for slot in range(4)] == [0, 1, 1, 0]
    assert kept.total_bytes == 2 * 2 * STEP
    assert release(kept, [1, 0, 2], [1, 3, 1]) is None


def test_a_session_that_is_gone_keeps_nothing() -> None:
    kept = kept_answers()
    keep(kept, [0, 1], [1, 1], 1)
    keep(kept, [0], [4], 3)
    kept.forget_all(0, 0)
    kept.forget_all(0, 2)
    assert kept.of(0, 0) == []
    assert len(kept.of(1, 0)) == 1
    assert kept.total_bytes == STEP


def test_models_share_the_bound_and_nothing_else() -> None:
    kept = kept_answers()
    outputs = keep(kept, [0], [1], 1)
    y = np.array([[2.5]], np.float32)
    kept.keep(1, np.array([1]), np.array([1]), 1, np.zeros(1, np.int64), (y,), "1")
    (mine,), (yours,) = kept.of(0, 0), kept.of(1, 0)
    assert kept.outputs(0, mine) == tuple(output[0].tobytes() for output in outputs)
    assert kept.outputs(1, yours) == (y.tobytes(),)
    assert kept.total_bytes == STEP + 4


def test_what_was_kept_by_one_of_two_models_alike_is_found_and_forgotten_by_the_other() -> None:
    kept = kept_answers()
    kept.add_model(with_outputs(*WIDE), like=0)
    outputs = keep(kept, [2], [1], 1)
    keep(kept, [2], [4], 3)
    assert kept.outputs(2, kept.of(2, 0)[0]) == tuple(output[0].tobytes() for output in outputs)
    assert kept.dump(2, np.array([2])).lengths.tolist() == [1, 3]
    kept.forget_all(2, 2)
    assert kept.total_bytes == kept._arenas[0].rows.used == 0


def test_as_many_single_steps_are_kept_as_fit_into_the_bound() -> None:
    sessions = 3 * WINDOW_CHUNKS
    kept = kept_answers(limit_bytes=STEP * sessions + 6, sessions=sessions)
    for _ in range(5):
        keep(kept, list(range(sessions)), [1] * sessions, 1)
        assert kept.total_bytes == STEP * sessions
        for slot in range(sessions):
            kept.forget_all(0, slot)
    assert kept.total_bytes == 0


def test_there_is_no_more_room_for_answers_than_sessions_can_have() -> None:
    kept = kept_answers(limit_bytes=1 << 50)
    assert kept._arenas[0].rows.capacity == SESSIONS * WINDOW_CHUNKS


def test_keys_of_longer_answers_are_used_again_and_never_while_they_are_in_use() -> None:
    kept, every = kept_answers(), list(range(SESSIONS))
    given = {}
    for number in range(100):
        end = 2 * (number + 1)
        given[end - 2] = keep(kept, every, [end] * SESSIONS, 2, seed=number)
        chunks = [(slot, chunk) for slot in every for chunk in kept.of(slot, 0)]
        assert len(chunks) == SESSIONS * min(number + 1, WINDOW_CHUNKS)
        places = {chunk.place for _, chunk in chunks}
        assert len(places) == len(chunks)
        assert places <= set(range(-SESSIONS * WINDOW_CHUNKS, 0))
        for slot, chunk in chunks:
            assert kept.outputs(0, chunk) == tuple(output[slot].tobytes() for output in given[chunk.first])
        release(kept, every, [end - 2 * WINDOW_CHUNKS + 2] * SESSIONS)


class History:
    """Random answers kept and forgotten, beside one list of (first, length, blobs) a session."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.kept = kept_answers()
        self.lists: list[list[tuple[int, int, tuple[bytes, ...]]]] = [[] for _ in range(SESSIONS)]
        self.ends = [0] * SESSIONS

    def run(self) -> None:
        for seed in range(EVENTS):
            self.random.choices([self.keep, self.release, self.end], [6, 3, 1])[0](seed)
            self.check()

    def keep(self, seed: int) -> None:
        length = self.random.choice([1, 1, 2, 5])
        slots = [slot for slot in range(SESSIONS) if len(self.lists[slot]) < WINDOW_CHUNKS]
        slots = self.random.sample(slots, self.random.randint(0, len(slots)))
        if not slots:
            return
        for slot in slots:
            self.ends[slot] += length
        outputs = keep(self.kept, slots, [self.ends[slot] for slot in slots], length, seed)
        for member, slot in enumerate(slots):
            blobs = tuple(output[member].tobytes() for output in outputs)
            self.lists[slot].append((self.ends[slot] - length, length, blobs))

    def release(self, _: int) -> None:
        slots = self.random.sample(range(SESSIONS), self.random.randint(1, SESSIONS))
        acknowledged = [self.random.randint(0, self.ends[slot]) for slot in slots]
        expected = []
        for slot, index in zip(slots, acknowledged, strict=True):
            stay = [one for one in self.lists[slot] if one[0] + one[1] > index]
            gone = self.lists[slot][: len(self.lists[slot]) - len(stay)]
            expected.append((len(gone), STEP * sum(length for _, length, _ in gone)))
            self.lists[slot] = stay
        forgotten = release(self.kept, slots, acknowledged)
        assert (forgotten or [[0] * len(slots)] * 2) == [
            list(column) for column in zip(*expected, strict=True)
        ]

    def end(self, _: int) -> None:
        slot = self.random.randrange(SESSIONS)
        self.kept.forget_all(0, slot)
        self.lists[slot], self.ends[slot] = [], 0

    def check(self) -> None:
        for slot, expected in enumerate(self.lists):
            held = self.kept.of(slot, 0)
            assert [(c.first, c.length, self.kept.outputs(0, c)) for c in held] == expected
        lengths = [length for held in self.lists for _, length, _ in held]
        assert self.kept.total_bytes == STEP * sum(lengths)
        # Nothing else stays in memory.
        assert self.kept._arenas[0].rows.used == lengths.count(1)
        assert len(self.kept._longer) == len(lengths) - lengths.count(1)


def test_every_history_of_kept_answers_is_that_of_one_list_a_session() -> None:
    for seed in range(HISTORIES):
        History(seed).run()


def test_what_is_dumped_and_loaded_into_other_slots_is_kept_as_before() -> None:
    kept, again = kept_answers(), kept_answers()
    for slot, lengths in ((2, [1]), (3, [1, 3, 1]), (0, []), (1, [2] * WINDOW_CHUNKS)):
        end = 0
        for seed, length in enumerate(lengths):
            end += length
            keep(kept, [slot], [end], length, seed)
    release(kept, [3], [1])
    dump = kept.dump(0, np.array([3, 0, 1, 2]))
    chunks, sizes = again.load(0, np.array([0, 1, 2, 3]), dump)
    assert chunks.tolist() == [2, 0, WINDOW_CHUNKS, 1]
    assert sizes.tolist() == [4 * STEP, 0, 2 * WINDOW_CHUNKS * STEP, STEP]
    assert again.total_bytes == kept.total_bytes
    for before, after in ((3, 0), (0, 1), (1, 2), (2, 3)):
        pairs = list(zip(kept.of(before, 0), again.of(after, 0), strict=True))
        assert all(one[:3] == other[:3] and one.version == other.version for one, other in pairs)
        assert all(kept.outputs(0, one) == again.outputs(0, other) for one, other in pairs)
    # It goes on from there: what is kept next takes no place that is in use.
    end = again.of(0, 0)[-1].first + 1
    for _ in range(WINDOW_CHUNKS - 2):
        end += 1
        keep(again, [0], [end], 1)
    assert len(again.of(0, 0)) == WINDOW_CHUNKS
    assert release(again, [2], [4]) == [[2], [4 * STEP]]
    keep(again, [2], [2 * WINDOW_CHUNKS + 1], 1)
    assert [chunk.first for chunk in again.of(2, 0)] == [*range(4, 2 * WINDOW_CHUNKS, 2), 2 * WINDOW_CHUNKS]
