"""What is told about sessions that are gone, and for how long."""

import json

import pytest

from service import tombstones
from service.errors import (
    SessionClosedError,
    SessionEvictedError,
    SessionExpiredError,
    SessionGoneError,
    SessionLostError,
)
from service.tombstones import TOMBSTONE_S, Tombstones

ME = ("me", "a")
HOW = {
    SessionExpiredError: "expired",
    SessionClosedError: "was closed",
    SessionEvictedError: "was evicted",
    SessionLostError: "was lost",
}


@pytest.mark.parametrize("reason", HOW)
def test_it_is_told_how_when_and_after_which_step_a_session_ended(reason: type[SessionGoneError]) -> None:
    stones = Tombstones()
    now = stones.put(ME, reason, 7, 100.0)
    later = stones.find(ME, 130.4)
    assert type(now) is type(later) is reason
    assert str(now) == f"session 'a' {HOW[reason]} 0 s ago, after 7 steps"
    assert str(later) == f"session 'a' {HOW[reason]} 30 s ago, after 7 steps"


def test_every_way_of_going_has_its_words() -> None:
    assert set(HOW) == set(SessionGoneError.__subclasses__())


def test_a_clock_that_stepped_back_makes_no_negative_time() -> None:
    stones = Tombstones()
    stones.put(ME, SessionClosedError, 0, 100.0)
    assert " 0 s ago" in str(stones.find(ME, 99.0))


def test_a_tombstone_stands_for_an_hour() -> None:
    stones = Tombstones()
    stones.put(ME, SessionClosedError, 0, 5.0)
    assert stones.find(ME, 5.0 + TOMBSTONE_S) is not None
    assert stones.find(ME, 5.1 + TOMBSTONE_S) is None


def test_nobody_sees_how_the_sessions_of_others_ended() -> None:
    stones = Tombstones()
    stones.put(ME, SessionClosedError, 0, 0.0)
    assert stones.find(("you", "a"), 0.0) is None
    assert stones.find(("me", "b"), 0.0) is None


def test_an_id_that_lives_again_has_no_tombstone() -> None:
    stones = Tombstones()
    stones.put(ME, SessionClosedError, 0, 0.0)
    stones.forget(ME)
    stones.forget(("me", "never"))
    assert stones.find(ME, 0.0) is None


def test_tombstones_are_bounded_and_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tombstones, "TOMBSTONES", 3)
    stones = Tombstones()
    for name in "abcd":
        stones.put(("me", name), SessionClosedError, 0, 0.0)
    assert [stones.find(("me", name), 0.0) is None for name in "abcd"] == [True, False, False, False]


def test_every_question_gets_an_error_of_its_own() -> None:
    stones = Tombstones()
    told = [stones.put(ME, SessionClosedError, 0, 0.0), *(stones.find(ME, 0.0) for _ in range(2))]
    # One error raised again and again would collect the frames that it was raised through.
    assert len({id(error) for error in told}) == 3


def test_after_a_restart_tombstones_tell_the_same_and_stand_no_longer_than_they_would_have() -> None:
    stones, again = Tombstones(), Tombstones()
    for k, reason in enumerate(HOW):
        stones.put(("me", str(k)), reason, k, 100.0)
    again.load(json.loads(json.dumps(stones.dump(160.0))), 5.0)  # another clock
    for k in range(len(HOW)):
        assert str(again.find(("me", str(k)), 7.0)) == str(stones.find(("me", str(k)), 162.0))
    assert again.find(("me", "0"), 5.0 + TOMBSTONE_S - 60.0) is not None
    assert again.find(("me", "0"), 5.1 + TOMBSTONE_S - 60.0) is None
