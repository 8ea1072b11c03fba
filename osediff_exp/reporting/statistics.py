"""What a comparison may claim: intervals, a paired test and its correction (docs/adr/0013-statistics.md). Pure functions of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

LEVEL = 0.95
ALPHA = 1 - LEVEL
MIN_PAIRS = 6  # the smallest two-sided p of n sign flips is 2 / 2^n: below 6 pairs it can never fall under 0.05
_EXACT_PAIRS = 20  # up to here all 2^(n - 1) sums are formed
_NUM_DRAWS = 20_000
_CHUNK = 2_000  # draws at a time: bounds the memory at 2,000 x n
_TIE = 1e-9  # sums this close (relative to the sum of sizes) count as equal: summation order must not decide


@dataclass(frozen=True)
class Interval:
    """A mean of ``n`` values and its 95 % confidence interval; ``low`` and ``high`` are None where n < 2 gives none."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def half(self) -> float | None:
        """Half the width of the (symmetric) interval."""
        return None if self.high is None else self.high - self.mean


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Return the mean of ``values`` and Student's interval ``mean +- t_{n-1} s / sqrt(n)``.

    Raises:
        ValueError: there is no value, or one is not finite.
    """
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"a mean needs at least one value and only finite ones, got {list(values)}")
    x = np.asarray(values, dtype=np.float64)
    n = len(x)
    # One value is kept as it is: a mean over one must not change its last digit or its type's text.
    if n == 1:
        return Interval(float(values[0]), None, None, 1)
    mean = float(x.mean())
    half = t_quantile((1 + level) / 2, n - 1) * float(x.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def t_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t distribution with ``degrees`` degrees of freedom."""
    from scipy.special import stdtrit  # inside: scipy costs a tenth of a second that a help page should not pay

    return float(stdtrit(degrees, probability))


def sign_flip_test(differences: Sequence[float]) -> float | None:
    """Return the two-sided p of the paired sign-flip permutation test of "mean difference is 0"; None below ``MIN_PAIRS`` pairs.

    If the two arms are alike, each difference is as likely as its negative. p is the share of the 2^n choices of signs whose sum is at
    least as far from 0 as the observed one: exact up to 20 pairs; above, (1 + hits) / (1 + draws) over 20,000 fixed random draws
    (Phipson and Smyth 2010: never 0).
    """
    d = np.asarray(differences, dtype=np.float64)
    if len(d) < MIN_PAIRS:
        return None
    bound = abs(float(d.sum())) - _TIE * float(np.abs(d).sum())
    if len(d) <= _EXACT_PAIRS:
        return float(np.mean(np.abs(_all_sums(d)) >= bound))
    rng = np.random.default_rng(0)
    hits = sum(int(np.sum(np.abs(_random_signs(rng, len(d)) @ d) >= bound)) for _ in range(_NUM_DRAWS // _CHUNK))
    return (1 + hits) / (1 + _NUM_DRAWS)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjusted p values (Holm 1979), in the order given: below alpha, the family-wise error stays below alpha."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def _all_sums(d: np.ndarray) -> np.ndarray:
    """Return the sums of all choices of signs with the first one kept: the other half are their negatives."""
    sums = d[:1]
    for value in d[1:]:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _random_signs(rng: np.random.Generator, n: int) -> np.ndarray:
    bits = np.unpackbits(rng.integers(0, 256, (_CHUNK, -(-n // 8)), dtype=np.uint8), axis=1, count=n)
    return 1.0 - 2.0 * bits
