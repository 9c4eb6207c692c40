"""Sampling: what may be drawn, how often, and that nothing but (seed, index) decides."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.sampling import Sampling, log_softmax, most_probable, nucleus, uniform

LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40).map(
    lambda values: np.array(values, np.float32)
)
INDICES = st.integers(0, 2**63 - 1)
SEEDS = st.integers(0, 2**64 - 1)
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 5e-324, 1e-300, 0.1, 1.0, 2.5, 1e300]),
    top_k=st.integers(0, 50),
    top_p=st.sampled_from([0.0, 0.2, 0.9, 1.0]),
    seed=SEEDS,
)
SHARES = np.array([0.4, 0.05, 0.25, 0.1, 0.2])
LOGITS_OF_SHARES = np.log(SHARES) + 7.0


def drawn(sampling: Sampling, logits: np.ndarray, count: int = 6000) -> np.ndarray:
    """How often each token is drawn for the steps 0 to count - 1."""
    tokens = [sampling.token(logits, index) for index in range(count)]
    return np.bincount(tokens, minlength=len(logits))


def chi_square(counts: np.ndarray, shares: np.ndarray) -> float:
    expected = counts.sum() * shares
    return float(((counts - expected) ** 2 / expected).sum())


@given(LOGITS, INDICES, SEEDS)
def test_no_temperature_one_token_and_no_share_each_mean_the_lowest_of_the_most_probable(
    logits: np.ndarray, index: int, seed: int
) -> None:
    best = logits.tolist().index(max(logits.tolist()))
    for sampling in (
        Sampling(temperature=0.0, seed=seed),
        Sampling(top_k=1, seed=seed),
        Sampling(top_p=0.0, seed=seed),
        Sampling(top_p=1e-12, seed=seed),
    ):
        assert sampling.token(logits, index) == best


def test_equal_logits_are_told_apart_by_their_position_alone() -> None:
    level = np.zeros(6, np.float32)
    assert {Sampling(temperature=0.0, seed=s).token(level, 3) for s in range(20)} == {0}
    assert {Sampling(top_k=2, seed=s).token(level, 3) for s in range(50)} == {0, 1}
    assert {Sampling(top_p=0.5, seed=s).token(level, 3) for s in range(50)} == {0, 1, 2}


@given(LOGITS, SAMPLINGS, INDICES)
def test_the_token_depends_on_the_logits_the_settings_and_the_index_alone(
    logits: np.ndarray, sampling: Sampling, index: int
) -> None:
    token = sampling.token(logits, index)
    batch = np.stack([logits + 1, logits, -logits])
    sampling.token(batch[0], index + 1)
    assert sampling.token(batch[1], index) == token
    np.testing.assert_array_equal(batch[1], logits)
    assert 0 <= token < len(logits)


@given(LOGITS, SAMPLINGS, INDICES)
def test_what_top_k_and_top_p_leave_out_is_never_drawn(
    logits: np.ndarray, sampling: Sampling, index: int
) -> None:
    token = sampling.token(logits, index)
    larger = int((logits > logits[token]).sum())
    if sampling.top_k:
        assert larger < sampling.top_k
    if sampling.temperature == 1.0 and not sampling.top_k:
        shares = np.exp(log_softmax(logits))
        assert shares[logits > logits[token]].sum() <= sampling.top_p + 1e-9


@pytest.mark.parametrize(
    ("sampling", "shares"),
    [
        (Sampling(seed=1), SHARES),
        (Sampling(temperature=0.5, seed=2), SHARES**2),
        (Sampling(temperature=2.0, seed=3), SHARES**0.5),
        (Sampling(top_k=2, seed=4), SHARES * [1, 0, 1, 0, 0]),
        (Sampling(top_p=0.7, seed=5), SHARES * [1, 0, 1, 0, 1]),
        # Top-p is of what top-k leaves: 0.65 of all is 1 of it.
        (Sampling(top_k=2, top_p=0.9, seed=6), SHARES * [1, 0, 1, 0, 0]),
        (Sampling(temperature=0.5, top_p=0.7, seed=7), SHARES**2 * [1, 0, 1, 0, 0]),
    ],
)
def test_tokens_are_drawn_as_often_as_their_shares_say(sampling: Sampling, shares: np.ndarray) -> None:
    shares = shares / shares.sum()
    counts = drawn(sampling, LOGITS_OF_SHARES)
    possible = shares > 0
    assert counts[~possible].sum() == 0
    # 4 degrees of freedom at most: 18.5 is passed once in a thousand seeds.
    assert chi_square(counts[possible], shares[possible]) < 18.5


def test_random_numbers_are_even_and_neighbours_in_seed_or_index_have_nothing_in_common() -> None:
    by_index = np.array([uniform(9, n) for n in range(20_000)])
    by_seed = np.array([uniform(s, 9) for s in range(20_000)])
    for numbers in (by_index, by_seed):
        assert ((numbers >= 0) & (numbers < 1)).all()
        counts = np.histogram(numbers, 10, (0, 1))[0]
        assert chi_square(counts, np.full(10, 0.1)) < 27.9  # 9 degrees of freedom, once in a thousand
        # A correlation of n independent pairs has the standard deviation 1 / sqrt(n).
        assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 4 / math.sqrt(len(numbers))
    assert abs(np.corrcoef(by_index, by_seed)[0, 1]) < 4 / math.sqrt(len(by_index))


def test_random_numbers_are_those_of_philox_and_stay_what_they_are() -> None:
    generator = np.random.Generator(np.random.Philox(key=np.array([7, 1], np.uint64)))
    assert uniform(7, 1) == generator.random()
    assert uniform(2**64 - 1, 2**63) != uniform(2**64 - 1, 2**63 - 1)


@given(LOGITS)
def test_the_logarithm_of_shares_is_exact_and_sums_to_one(logits: np.ndarray) -> None:
    shares = log_softmax(logits)
    assert shares.dtype == np.float64
    assert math.isclose(math.fsum(np.exp(shares)), 1.0, rel_tol=1e-12)
    wide = logits.astype(np.longdouble)
    expected = wide - np.log(np.exp(wide - wide.max()).sum()) - wide.max()
    np.testing.assert_allclose(shares, expected.astype(np.float64), rtol=1e-12, atol=1e-12)


def test_masked_tokens_are_never_drawn_and_logits_that_are_no_numbers_are_refused() -> None:
    masked = np.array([-np.inf, 0.0, -np.inf, 0.0])
    assert {Sampling(seed=s).token(masked, 0) for s in range(50)} == {1, 3}
    for wrong in ([0.0, np.nan], [0.0, np.inf], [-np.inf, -np.inf]):
        with pytest.raises(ValueError, match="finite logits"):
            Sampling().token(np.array(wrong), 0)


def test_the_largest_random_number_there_is_draws_no_token_that_is_ruled_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.sampling.uniform", lambda *_: 1 - 2.0**-53)
    for k in range(2000):
        assert Sampling().token(np.array([0.0, k / 700, -np.inf, -np.inf]), 0) == 1


def test_the_most_probable_tokens_and_the_nucleus_keep_their_order() -> None:
    scores = np.array([1.0, 3.0, 2.0, 3.0])
    assert most_probable(scores, 2).tolist() == [1, 3]
    assert most_probable(scores, 3).tolist() == [1, 2, 3]
    assert most_probable(scores, 0).tolist() == most_probable(scores, 9).tolist() == [0, 1, 2, 3]
    shares = np.log([0.25, 0.5, 0.25])
    assert nucleus(shares, 0.5).tolist() == [1]
    assert nucleus(shares, 0.51).tolist() == [0, 1]
    assert nucleus(shares, 0.76).tolist() == nucleus(shares, 1.0).tolist() == [0, 1, 2]
    # Their shares are the same number, and still one of them is larger.
    assert nucleus(np.array([-1e-40, 0.0]), 0.0).tolist() == [1]
