"""Accounts: what an owner uses, held against its quota."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import QuotaExceededError
from service.quotas import Account, Quota


def account(**quota: float) -> Account:
    made = Account()
    made.quota = Quota(**quota)  # type: ignore[arg-type]
    return made


def test_without_a_quota_nothing_is_refused() -> None:
    free = Account()
    free.queued = 10**9
    assert free.check(10**9, 0.0) is None


def test_a_second_of_steps_may_come_at_once_and_then_they_come_at_their_rate() -> None:
    one = account(steps_per_s=100)
    assert one.check(60, 1000.0) is None
    assert one.check(40, 1000.0) is None
    refusal = one.check(1, 1000.0)
    assert refusal is not None
    assert str(refusal) == "steps: your quota is 100 a second; try again in 0.010 s"
    assert one.check(1, 1000.011) is None
    assert one.check(101, 1003.0) is None, "more than a second's worth comes out of a full bucket"
    assert one.check(1, 1003.01) is not None, "which then owes it"
    assert one.check(1, 1003.03) is None


def test_what_is_refused_costs_nothing() -> None:
    one = account(steps_per_s=10)
    assert one.check(8, 0.0) is None
    for _ in range(5):
        assert one.check(3, 0.0) is not None
    assert one.check(2, 0.0) is None


@given(
    st.floats(0.5, 1e4),
    st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 300)), min_size=1, max_size=200),
)
def test_no_pattern_of_chunks_beats_the_rate_by_more_than_a_second_and_a_chunk(
    rate: float, frames: list[tuple[float, int]]
) -> None:
    one, now, taken = account(steps_per_s=rate), 0.0, 0
    for pause, steps in frames:
        now += pause
        if one.check(steps, now) is None:
            taken += steps
    assert taken <= rate * (now + 1) + max(steps for _, steps in frames) + 1e-6


@given(st.floats(1, 1e4), st.integers(1, 10_000))
def test_whoever_waits_as_long_as_it_is_told_is_let_through(rate: float, steps: int) -> None:
    one = account(steps_per_s=rate)
    assert one.check(10_000, 0.0) is None
    refusal = one.check(steps, 0.0)
    if refusal is not None:
        wait = float(str(refusal).split("try again in ")[1].removesuffix(" s"))
        assert one.check(steps, wait + 1e-6) is None
        assert one.check(10_000, wait + 1e-6) is not None


def test_chunks_count_until_each_has_its_outcome() -> None:
    one = account(queued_chunks=2)
    with one.taking(1, 0.0), one.taking(1, 0.0):
        with (
            pytest.raises(QuotaExceededError, match="your quota is 2, this would make 3"),
            one.taking(1, 0.0),
        ):
            pytest.fail("this one is too many")
        assert one.queued == 2
    assert one.queued == 0
    with pytest.raises(QuotaExceededError, match="this would make 3"), one.taking(1, 0.0, 3):
        pytest.fail("these are too many")
    with one.taking(1, 0.0, 2):
        assert one.queued == 2


def test_a_new_quota_holds_from_then_on() -> None:
    one = account(steps_per_s=1000)
    assert one.check(1, 0.0) is None
    one.quota = Quota(steps_per_s=5)
    assert one.check(6, 0.0) is None
    assert one.check(1, 0.0) is not None
    one.quota = None
    assert one.check(1, 0.0) is None
