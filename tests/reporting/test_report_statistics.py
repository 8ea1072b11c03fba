from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from osediff_exp.reporting.statistics import MIN_PAIRS, holm, mean_interval, sign_flip_test, t_quantile


def test_the_interval_is_students() -> None:
    values = [25.1, 25.4, 24.9, 25.2]
    interval = mean_interval(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (interval.low, interval.high, interval.n) == (pytest.approx(low), pytest.approx(high), 4)
    assert interval.half == pytest.approx((high - low) / 2)
    assert mean_interval([1.0, 3.0]).high == pytest.approx(2 + 12.7062047)  # t_1(0.975) = tan(0.475 pi), s / sqrt(2) = 1
    assert t_quantile(0.975, 1) == pytest.approx(np.tan(0.475 * np.pi))


def test_one_value_has_no_interval_and_keeps_its_digits() -> None:
    interval = mean_interval([0.1 + 0.2])
    assert (interval.mean, interval.low, interval.high, interval.half, interval.n) == (0.1 + 0.2, None, None, None, 1)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_a_mean_of_nothing_or_of_nan_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        mean_interval(values)


def test_the_interval_covers_the_truth_19_times_in_20() -> None:
    rng = np.random.default_rng(1)
    intervals = [mean_interval(list(map(float, rng.normal(3.0, 2.0, 4)))) for _ in range(2000)]
    covered = np.mean(
        [interval.low <= 3.0 <= interval.high for interval in intervals if interval.low is not None and interval.high is not None]
    )
    assert covered == pytest.approx(0.95, abs=0.015)


def test_the_exact_test_is_the_share_of_all_signs_that_are_as_extreme() -> None:
    d = np.random.default_rng(2).normal(0.4, 1, 9)
    sums = [abs(np.dot(signs, d)) for signs in itertools.product((1, -1), repeat=9)]
    assert sign_flip_test(list(d)) == pytest.approx(np.mean(np.array(sums) >= abs(d.sum()) - 1e-9))


def test_it_agrees_with_scipy() -> None:
    d = np.random.default_rng(3).normal(0.3, 1, 12)
    theirs = stats.permutation_test((d,), lambda x, axis: np.mean(x, axis=axis), permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_test(list(d)) == pytest.approx(theirs.pvalue)


def test_closed_forms() -> None:
    assert sign_flip_test([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]) == 2 / 2**6, "all of one sign: only the two extremes are as far out"
    assert sign_flip_test([1.0, -1.0] * 4) == 1.0
    assert sign_flip_test([0.0] * 30) == 1.0
    assert sign_flip_test([1.0] * (MIN_PAIRS - 1)) is None


def test_many_pairs_are_drawn_and_agree_with_the_normal_limit_and_never_give_zero() -> None:
    d = np.random.default_rng(4).normal(0.12, 1, 200)
    limit = 2 * stats.norm.sf(abs(d.sum()) / np.sqrt(np.sum(d**2)))
    assert sign_flip_test(list(d)) == pytest.approx(limit, abs=0.01)
    assert sign_flip_test(list(d)) == sign_flip_test(list(d)), "the draws are fixed"
    assert sign_flip_test([1.0] * 40) == 1 / 20_001


def test_the_test_does_not_depend_on_the_unit() -> None:
    d = list(np.random.default_rng(5).normal(0.4, 1, 10))
    assert sign_flip_test([1e-7 * x for x in d]) == sign_flip_test(d) == sign_flip_test([-x for x in d])


def test_holm_by_hand() -> None:
    # sorted: .005 x 4, .01 x 3, .03 x 2, .04 x 1 -> .02, .03, .06, .06 (never below the one before)
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
