"""Chunks that go together: who waits for which, and what is left when some are dropped."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.cohort import Answers, Segment, Waiter, cut
from service.errors import InvalidInputError, ServiceError
from tests.cohorts import cohort


class Listener:
    """A caller that writes down what it is told, by position in its frame."""

    def __init__(self) -> None:
        self.left = False
        self.waits: list[Any] = []
        self.answers: dict[int, tuple[int, tuple[bytes, ...]]] = {}
        self.errors: dict[int, ServiceError] = {}

    def answered(self, answers: Answers) -> None:
        for k, position in enumerate(answers.positions):
            sizes = [len(blob) // len(answers.positions) for blob in answers.outputs]
            blobs = zip(answers.outputs, sizes, strict=True)
            parts = tuple(blob[k * size : (k + 1) * size] for blob, size in blobs)
            self.answers[position] = answers.firsts[k], parts

    def refused(self, position: int, error: ServiceError) -> None:
        self.errors[position] = error

    def gone(self, position: int) -> ServiceError:
        raise AssertionError


def people(count: int) -> list[Listener]:
    return [Listener() for _ in range(count)]


frames = st.lists(st.integers(1, 4), min_size=1, max_size=5)
"""Numbers of chunks of some frames."""


@given(frames)
def test_owners_are_cut_where_the_frame_changes(sizes: list[int]) -> None:
    owners = [
        (caller, k) for caller, size in zip(people(len(sizes)), sizes, strict=True) for k in range(size)
    ]
    segments = cut(owners)
    assert [segment.stop - segment.start for segment in segments] == sizes
    assert [(s.caller, k) for s in segments for k in s.positions] == owners


def test_a_frame_with_others_in_between_has_several_segments() -> None:
    one, two = people(2)
    segments = cut([(one, 0), (two, 0), (one, 3)])
    assert [(s.caller, s.positions, s.start, s.stop) for s in segments] == [
        (one, [0], 0, 1),
        (two, [0], 1, 2),
        (one, [3], 2, 3),
    ]


@given(frames, st.data())
def test_dropped_members_are_left_out_and_the_others_keep_all_that_is_theirs(
    sizes: list[int], data: st.DataObject
) -> None:
    callers = people(len(sizes))
    owners = [(caller, 7 + k) for caller, size in zip(callers, sizes, strict=True) for k in range(size)]
    count = len(owners)
    slots = data.draw(st.permutations(range(count)))
    dropped = data.draw(st.sets(st.integers(0, count - 1)))
    numbered = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    one = cohort(slots, 2, firsts=[10 * k for k in range(count)], numbered=numbered, segments=cut(owners))
    joined = [Waiter(caller, 99) for caller in people(count)]
    one.joined = {member: [waiter] for member, waiter in enumerate(joined)}
    one.started, one.rows = True, 50 + np.arange(count)
    one.parts = [tuple(array[:, :1] for array in one.inputs)]
    before = [known(one, member) for member in range(count)]
    for member in dropped:
        one.drop(member)
    assert len(one) == count, "members stay in their places until it shrinks"
    assert [one.is_dropped(member) for member in range(count)] == [m in dropped for m in range(count)]
    one.shrink()
    assert len(one) == count - len(dropped)
    assert one.dropped is None
    stayed = [member for member in range(count) if member not in dropped]
    assert [known(one, k) for k in range(len(one))] == [before[member] for member in stayed]
    assert [one.member(slots[member]) for member in stayed] == list(range(len(stayed)))
    assert one.names == sum(numbered[member] for member in stayed)


def known(one: Any, member: int) -> list[Any]:
    """All that belongs to a member."""
    columns = (one.slots, one.serials, one.firsts, one.numbered, one.digests, one.acknowledged, one.rows)
    arrays = [*one.inputs, *(array for part in one.parts for array in part)]
    return [
        *(column[member] for column in columns),
        *(array[member].tolist() for array in arrays),
        list(one.waiters(member)),
    ]


def test_a_cohort_that_has_not_started_owns_no_rows() -> None:
    one = cohort([0, 1])
    one.drop(0)
    one.shrink()
    assert one.slots.tolist() == [1]
    assert len(one.rows) == 0


def test_everybody_who_still_waits_is_answered_with_the_steps_of_all_runs() -> None:
    one, two, joins = people(3)
    chunks = cohort([4, 5, 6], 3, firsts=[0, 7, 9], segments=cut([(one, 0), (one, 1), (two, 0)]))
    chunks.joined = {1: [Waiter(joins, 5)]}
    (x,) = chunks.inputs
    chunks.parts = [(x[:, :2],), (x[:, 2:],)]
    chunks.answer(chunks.outputs(), "1")
    assert one.answers == {0: (0, (x[0].tobytes(),)), 1: (7, (x[1].tobytes(),))}
    assert two.answers == {0: (9, (x[2].tobytes(),))}
    assert joins.answers == {5: (7, (x[1].tobytes(),))}


def test_who_has_left_is_told_nothing() -> None:
    callers = people(4)
    one, two, joins, left = callers
    refusals: Sequence[Callable[[Any], None]] = (
        lambda chunks: chunks.answer(chunks.inputs, "1"),
        lambda chunks: [chunks.refuse(member, InvalidInputError("no")) for member in range(2)],
    )
    one.left = left.left = True
    for tell in refusals:
        chunks = cohort([0, 1], segments=[Segment(one, [0], 0, 1), Segment(two, [0], 1, 2)])
        chunks.joined = {0: [Waiter(joins, 1), Waiter(left, 2)]}
        assert list(chunks.waiters(0)) == [Waiter(joins, 1)]
        tell(chunks)
    for caller, position in ((two, 0), (joins, 1)):
        assert list(caller.answers) == list(caller.errors) == [position]
    assert [caller.answers | caller.errors for caller in (one, left)] == [{}, {}]


def test_everybody_is_refused_with_an_error_of_their_own() -> None:
    one, two = people(2)
    chunks = cohort([0], segments=[Segment(one, [3], 0, 1)])
    chunks.joined = {0: [Waiter(two, 4)]}
    error = InvalidInputError("no")
    chunks.refuse(0, error)
    assert str(one.errors[3]) == str(two.errors[4]) == "no"
    # One error raised by several callers would collect the frames of all of them.
    assert len({id(error), id(one.errors[3]), id(two.errors[4])}) == 3
