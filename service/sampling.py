"""Tokens drawn from logits. Pure.

The random number for the answer to step n is a function of (seed, n) alone, so that a generation which is resumed at n, in
whatever company, on whatever connection, makes the same tokens. Axes: V symbols.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.floating]
Float64 = NDArray[np.float64]
Tokens = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is drawn: temperature, then top-k, then top-p."""

    temperature: float = 1.0
    """Logits are divided by it; 0: the most probable token, and of several the lowest."""
    top_k: int = 0
    """Only so many of the most probable tokens, the lower ones first where they are equal; 0: all."""
    top_p: float = 1.0
    """Of these, the fewest most probable ones that have together at least this share; never none.

    Source: nucleus sampling, Holtzman et al. 2020, section 3.1."""
    seed: int = 0
    """0 to 2^64 - 1."""

    def token(self, logits: Numbers, index: int) -> int:
        """Draw the token that follows step `index`.

        Args:
            logits: `[V]`, the answer to that step, of any float dtype; -inf excludes a token.
            index: Of the step in its session.

        Raises:
            ValueError: a logit is NaN or +inf, or all are -inf.
        """
        logits = logits.astype(np.float64)
        best = int(np.argmax(logits))  # of NaN, the first
        if not np.isfinite(logits[best]):
            raise ValueError(f"expected finite logits, the largest is {logits[best]}")
        if self.temperature == 0.0:
            return best
        with np.errstate(over="ignore"):
            # The largest becomes 0 first: a tiny temperature may make the others infinite, and not it.
            scaled = (logits - logits[best]) / self.temperature
        tokens = most_probable(scaled, self.top_k)
        if self.top_p < 1.0:
            tokens = tokens[nucleus(scaled[tokens], self.top_p)]
        ends = np.cumsum(np.exp(log_softmax(scaled[tokens])))
        # No number below 1 times the whole is rounded up to it, so what is drawn has a share.
        drawn = np.searchsorted(ends, uniform(self.seed, index) * ends[-1], side="right")
        return int(tokens[drawn])


def log_softmax(scores: Numbers) -> Float64:
    """Logarithms of the shares that `scores` stand for, `[V]`; at least one is finite, none is NaN or +inf."""
    shares: Float64 = scores.astype(np.float64)
    shares -= shares.max()
    shares -= np.log(np.exp(shares).sum())
    return shares


def most_probable(scores: Float64, count: int) -> Tokens:
    """The tokens with the `count` largest scores, in their own order; 0: all of them."""
    if not 0 < count < len(scores):
        return np.arange(len(scores))
    least = np.partition(scores, -count)[-count]
    above, level = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
    return np.sort(np.concatenate([above, level[: count - len(above)]]))


def nucleus(scores: Float64, top_p: float) -> Tokens:
    """Positions of the fewest largest scores whose shares have the sum `top_p` or more, in their own order."""
    order = np.argsort(-scores, kind="stable")
    ends = np.cumsum(np.exp(log_softmax(scores[order])))
    count = int(np.searchsorted(ends, top_p, side="left")) + 1
    return np.sort(order[:count])


def uniform(seed: int, index: int) -> float:
    """A number in [0, 1) for each (seed, index), the same in every release of NumPy.

    Source: Philox 4x64-10, Salmon et al. 2011, keyed by the two numbers; the upper 53 of its first 64 bits.
    """
    bits = np.random.Philox(key=np.array([seed, index], np.uint64)).random_raw()
    return (int(bits) >> 11) * 2.0**-53
