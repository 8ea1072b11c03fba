"""What a comparison may claim: intervals, a paired test and its correction (docs/adr/0013-statistics.md). Pure functions of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LEVEL = 0.95
ALPHA = 1 - LEVEL
POWER = 0.8
MIN_PAIRS = 6  # the smallest two-sided p of n sign flips is 2 / 2^n: below 6 pairs it can never fall under 0.05
_EXACT_PAIRS = 16  # up to here all 2^(n - 1) choices of signs are formed
_NUM_DRAWS = 20_000
_CHUNK = 2_000  # choices of signs at a time: bounds the memory at 2,000 x (pairs + hypotheses)
_TIE = 1e-9  # statistics this close (relative) count as equal: summation order must not decide


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


@dataclass(frozen=True)
class Test:
    """The p values of one hypothesis: by itself, and adjusted for all that were tested beside it.

    ``critical`` is the statistic, as Student's |t|, from which on the adjusted p of the strongest hypothesis is below 0.05; infinite where
    none is.
    """

    p: float
    p_adjusted: float
    critical: float


def paired_tests(samples: Sequence[Mapping[str, float]], weights: Sequence[Mapping[str, float]] | None = None) -> list[Test | None]:
    """Test "the mean difference is 0" for several sets of paired differences at once; None for a set below ``MIN_PAIRS`` pairs.

    ``samples`` maps, hypothesis by hypothesis, the name of a unit (a photo) to its difference; hypotheses share units by name. ``weights``
    are the units' sizes over their mean size (photo_units.photo_weights; None: all 1), where ``samples`` hold photo_units.photo_totals.

    If two arms are alike, a unit's differences together are as likely as their negatives. ``p`` is the share of all choices of signs whose
    statistic is at least the observed one, which keeps its level whatever the statistic is. It is ``|S| / sqrt(R + S^2 / n)`` with
    ``S = sum d`` and ``R = sum (d - w S / n)^2`` over the choice's signs: a monotone function of ``|t| = |S| sqrt((n - 1) / (n R))``,
    Student's t of the mean over pictures with linearised residuals (photo_units.by_photo). With weights of 1 it is
    ``|sum d| / sqrt(sum d^2)``. A choice flips a unit in all hypotheses alike, so that their dependence is kept, and ``p_adjusted`` is the
    step-down max-T value of Westfall and Young (1993, algorithm 4.1): the share of choices in which the largest statistic of this and all
    weaker hypotheses reaches this one's. Below alpha, the family-wise error stays below alpha. Up to 16 units all 2^n choices are formed;
    above, 20,000 fixed random ones give (1 + hits) / (1 + draws) (Phipson and Smyth 2010: never 0).
    """
    tested = [place for place, sample in enumerate(samples) if len(sample) >= MIN_PAIRS]
    units = list(dict.fromkeys(unit for place in tested for unit in samples[place]))
    tests: list[Test | None] = [None] * len(samples)
    if tested:
        # A unit that a hypothesis lacks counts as 0: it changes neither its sum nor its sum of squares.
        d = np.array([[samples[place].get(unit, 0.0) for unit in units] for place in tested], dtype=np.float64)
        sizes = [dict.fromkeys(samples[place], 1.0) if weights is None else weights[place] for place in tested]
        w = np.array([[own.get(unit, 0.0) for unit in units] for own in sizes], dtype=np.float64)
        p, adjusted, critical = _max_t(d, w)
        for row, place in enumerate(tested):
            tests[place] = Test(float(p[row]), float(adjusted[row]), _students_t(critical, len(samples[place])))
    return tests


def detectable_difference(values: Sequence[float], critical: float | None = None) -> float | None:
    """Return the minimum detectable effect: the true mean difference that a test of ``values`` would find with a probability of 0.8.

    (t* + t_{n-1}(0.8)) s / sqrt(n), in the unit of the values (Bloom 1995, "Minimum detectable effects", Evaluation Review 19(5), eq. 1,
    whose multiplier is the sum of both quantiles); t* is ``critical``, by default t_{n-1}(0.975), the two-sided test's at 0.05. None where
    fewer than two values, or a test that can find nothing, give none.
    """
    n = len(values)
    if n < 2:
        return None
    if critical is None:
        critical = t_quantile((1 + LEVEL) / 2, n - 1)
    error = float(np.std(values, ddof=1)) / math.sqrt(n)
    return (critical + t_quantile(POWER, n - 1)) * error if math.isfinite(critical) else None


def smallest_p(num_pairs: int) -> float:
    """Return the smallest p, adjusted or not, that :func:`paired_tests` can give: however many hypotheses there are, it is the same."""
    return 2.0 / 2**num_pairs if num_pairs <= _EXACT_PAIRS else 1 / (1 + _NUM_DRAWS)


def _students_t(z: float, n: int) -> float:
    """Return the |t| of n units whose statistic (see :func:`paired_tests`) is ``z``: z sqrt((n - 1) / (n - z^2)), infinite at z^2 = n."""
    return z * math.sqrt((n - 1) / (n - z * z)) if z * z < n * (1 - _TIE) else math.inf


def _max_t(d: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return p and adjusted p of the rows of ``d`` (hypotheses x units, as ``w``), and the largest statistic's quantile at 0.95."""
    norms = np.sqrt(np.sum(d**2, axis=1))
    scaled = d / np.where(norms > 0, norms, 1.0)[:, None]
    observed = _statistics(np.ones((1, d.shape[1])), scaled, w)[0]
    order = np.argsort(-observed, kind="stable")
    scaled, w, bounds = scaled[order], w[order], observed[order] * (1 - _TIE)
    count, hits, hits_of_largest = 0, np.zeros(len(d)), np.zeros(len(d))
    largest_of_all = []
    for signs in _choices(d.shape[1]):
        statistics = _statistics(signs, scaled, w)
        largest = np.maximum.accumulate(statistics[:, ::-1], axis=1)[:, ::-1]  # over this hypothesis and all weaker ones
        largest_of_all.append(largest[:, 0])
        count += len(signs)
        hits += (statistics >= bounds).sum(axis=0)
        hits_of_largest += (largest >= bounds).sum(axis=0)
    more = 0 if d.shape[1] <= _EXACT_PAIRS else 1  # of random choices, the observed one is one more
    p, adjusted = ((more + number) / (more + count) for number in (hits, hits_of_largest))
    back = np.argsort(order, kind="stable")
    critical = float(np.quantile(np.concatenate(largest_of_all), LEVEL, method="higher"))
    return p[back], np.maximum.accumulate(adjusted)[back], critical  # a weaker hypothesis never has a smaller p


def _statistics(signs: np.ndarray, d: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return (choices, hypotheses): the statistics of rows ``d`` with sum d^2 = 1 under choices of signs (choices, units).

    R + S^2 / n = 1 + (S / n) (S (sum w^2 / n + 1) - 2 sum w d), which is 1 to the last bit where all weights are.
    """
    total = signs @ d.T
    n, spread = w.sum(axis=1), (w**2).sum(axis=1)
    weighted = total if np.array_equal(w, w != 0) else signs @ (w * d).T
    return np.abs(total) / np.sqrt(1 + total / n * (total * (spread / n + 1) - 2 * weighted))


def _choices(n: int) -> Iterator[np.ndarray]:
    """Yield choices of ``n`` signs, in chunks: all those that keep the first sign (the others are their negatives), or random ones."""
    if n <= _EXACT_PAIRS:
        for start in range(0, 2 ** (n - 1), _CHUNK):
            numbers = np.arange(start, min(start + _CHUNK, 2 ** (n - 1)))
            yield 1.0 - 2.0 * (numbers[:, None] >> np.arange(n) & 1)
        return
    rng = np.random.default_rng(0)
    for _ in range(_NUM_DRAWS // _CHUNK):
        bits = np.unpackbits(rng.integers(0, 256, (_CHUNK, -(-n // 8)), dtype=np.uint8), axis=1, count=n)
        yield 1.0 - 2.0 * bits
