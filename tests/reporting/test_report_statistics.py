from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats

from osediff_exp.reporting.statistics import MIN_PAIRS, detectable_difference, mean_interval, paired_tests, smallest_p, t_quantile


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


def p_of(d: Any) -> tuple[float, float] | None:
    """p and adjusted p of one sample."""
    (test,) = paired_tests([{str(place): float(value) for place, value in enumerate(d)}])
    return (test.p, test.p_adjusted) if test else None


def named(table: np.ndarray) -> list[dict[str, float]]:
    """Rows are hypotheses, columns pictures."""
    return [{f"p{place}": float(value) for place, value in enumerate(row)} for row in table]


def test_it_agrees_with_scipy() -> None:
    d = np.random.default_rng(3).normal(0.3, 1, 12)
    theirs = stats.permutation_test((d,), lambda x, axis: np.mean(x, axis=axis), permutation_type="samples", n_resamples=np.inf)
    assert p_of(d) == pytest.approx((theirs.pvalue, theirs.pvalue)), "one hypothesis needs no adjustment"


def test_the_statistic_is_students_t_in_other_units() -> None:
    d = np.random.default_rng(8).normal(0.5, 1, (30, 9))
    z = np.abs(d.sum(axis=1)) / np.sqrt((d**2).sum(axis=1))
    t = np.abs(stats.ttest_1samp(d, 0, axis=1).statistic)
    assert list(np.argsort(z)) == list(np.argsort(t))
    assert t == pytest.approx(z * np.sqrt(8 / (9 - z**2)))


def test_adjusted_p_is_the_step_down_largest_t_over_all_signs() -> None:
    rng = np.random.default_rng(2)
    d = rng.normal(0, 1, (5, 8)) + rng.normal(0, 1, 8) + np.array([1.5, 0.8, 0.4, 0.1, 0])[:, None]
    d[3, 2:4] = 0.0
    observed = np.abs(stats.ttest_1samp(d, 0, axis=1).statistic)
    order = np.argsort(-observed)
    signs = np.array(list(itertools.product((1, -1), repeat=8)))
    flipped = np.abs(stats.ttest_1samp(signs[:, None, :] * d, 0, axis=2).statistic)  # (choices, hypotheses)
    expected, largest = np.zeros(5), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, float(np.mean(flipped[:, order[rank:]].max(axis=1) >= observed[place] * (1 - 1e-9))))
        expected[place] = largest
    tests = paired_tests(named(d))
    assert [test.p_adjusted for test in tests if test] == pytest.approx(list(expected))
    assert [test.p for test in tests if test] == pytest.approx(list(np.mean(flipped >= observed * (1 - 1e-9), axis=0)))


def test_forty_comparisons_of_ten_pictures_can_be_significant() -> None:
    # Bonferroni's and Holm's smallest p would be 40 x 2 / 1024 = 0.078.
    d = 1 + 0.2 * np.random.default_rng(6).normal(size=(40, 10))
    assert {test.p_adjusted for test in paired_tests(named(d)) if test} == {2 / 1024} == {smallest_p(10)}


def test_the_family_wise_error_is_kept_where_all_arms_share_a_baseline_and_metrics_go_together() -> None:
    rng, false = np.random.default_rng(0), 0
    for _ in range(300):
        base, mixing = rng.standard_t(4, (8, 4)), rng.normal(size=(4, 4))
        d = (rng.standard_t(4, (4, 8, 4)) - base) @ mixing  # 4 arms x 8 pictures x 4 metrics, heavy tails, no effect
        tests = paired_tests(named(d.transpose(0, 2, 1).reshape(16, 8)))
        false += min(test.p_adjusted for test in tests if test) < 0.05
    assert 0.02 < false / 300 < 0.075, "0.047 = 12 / 256 is what 8 pictures allow"


def test_closed_forms() -> None:
    assert p_of([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]) == (2 / 2**6, 2 / 2**6), "all of one sign: only the two extremes are as far out"
    assert p_of([1.0, -1.0] * 4) == (1.0, 1.0)
    assert p_of([0.0] * 30) == (1.0, 1.0)
    assert p_of([1.0] * (MIN_PAIRS - 1)) is None
    assert paired_tests([]) == []
    assert smallest_p(MIN_PAIRS) < 0.05 < smallest_p(MIN_PAIRS - 1)


def test_a_hypothesis_that_lacks_pictures_is_tested_on_its_own() -> None:
    d = np.random.default_rng(7).normal(0.6, 1, 11)
    short = {f"p{place}": float(d[place]) for place in range(2, 9)}
    few = {"p1": 1.0}
    tests = paired_tests([*named(d[None]), short, few])
    alone = p_of(list(short.values()))
    assert alone is not None
    assert tests[1] is not None
    assert (tests[1].p, tests[2]) == (pytest.approx(alone[0]), None)


def ratio_t(totals: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Student's |t| of the mean over pictures, with linearised residuals: ``totals`` (..., n) are the photos' shares."""
    n = totals.shape[-1]
    mean = totals.mean(axis=-1, keepdims=True)
    return np.abs(mean[..., 0]) / np.sqrt(((totals - w * mean) ** 2).sum(axis=-1) / (n * (n - 1)))


def test_units_of_unequal_size_are_tested_by_the_t_of_the_mean_over_pictures() -> None:
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 17, 8)
    w = sizes / sizes.mean()
    d = rng.normal(0.6, 1, (3, 8)) * w
    names = [f"p{place}" for place in range(8)]
    tests = paired_tests(named(d), [dict(zip(names, w.tolist(), strict=True))] * 3)
    signs = np.array(list(itertools.product((1, -1), repeat=8)))
    observed, flipped = ratio_t(d, w), ratio_t(signs[:, None, :] * d, w)
    assert [test.p for test in tests if test] == pytest.approx(list(np.mean(flipped >= observed * (1 - 1e-9), axis=0)))
    strongest = int(observed.argmax())
    (test,) = [tests[strongest]]
    assert test is not None
    assert test.p_adjusted == pytest.approx(np.mean(flipped.max(axis=1) >= observed[strongest] * (1 - 1e-9)))
    assert test.critical == pytest.approx(np.quantile(flipped.max(axis=1), 0.95, method="higher"))


def test_weights_of_one_change_nothing() -> None:
    d = np.random.default_rng(9).normal(0.3, 1, (4, 20))
    samples = named(d)
    assert paired_tests(samples, [dict.fromkeys(sample, 1.0) for sample in samples]) == paired_tests(samples)


def test_unequal_units_keep_the_level() -> None:
    rng, false = np.random.default_rng(1), 0
    w = np.array([16, 1, 2, 9, 1, 4, 12, 3.0])
    w /= w.mean()
    weights = [{f"p{place}": float(own) for place, own in enumerate(w)}] * 2
    for _ in range(300):
        d = w * rng.standard_t(4, (2, 8)) * np.sqrt(0.5 + 0.5 / w)  # photos differ, and their crops too
        false += min(test.p_adjusted for test in paired_tests(named(d), weights) if test) < 0.05
    assert 0.02 < false / 300 < 0.075


def test_many_pairs_are_drawn_and_agree_with_the_normal_limit_and_never_give_zero() -> None:
    d = np.random.default_rng(4).normal(0.12, 1, 200)
    limit = 2 * stats.norm.sf(abs(d.sum()) / np.sqrt(np.sum(d**2)))
    assert p_of(d) == pytest.approx((limit, limit), abs=0.01)
    assert p_of(d) == p_of(d), "the draws are fixed"
    assert p_of([1.0] * 40) == (1 / 20_001, 1 / 20_001) == (smallest_p(40), smallest_p(40))


def test_the_test_does_not_depend_on_the_unit() -> None:
    d = np.random.default_rng(5).normal(0.4, 1, 10)
    assert p_of(1e-7 * d) == p_of(d) == p_of(-d)


def test_the_detectable_difference_is_blooms_multiple_of_the_standard_error() -> None:
    values = [1.0, 2.0, 4.0, 5.0]
    expected = (stats.t.ppf(0.975, 3) + stats.t.ppf(0.8, 3)) * stats.sem(values)
    assert detectable_difference(values) == pytest.approx(expected)
    assert detectable_difference(values, 5.0) == pytest.approx((5.0 + stats.t.ppf(0.8, 3)) * stats.sem(values))
    assert detectable_difference([1.0]) is None
    assert detectable_difference(values, float("inf")) is None


@pytest.mark.parametrize("hypotheses", [1, 6])
def test_a_difference_of_that_size_is_found_four_times_in_five(hypotheses: int) -> None:
    rng = np.random.default_rng(5)
    sizes, found = [], 0
    for _ in range(60):
        d = rng.normal(0, 1, (hypotheses, 12))
        (test, *_) = paired_tests(named(d))
        assert test is not None
        sizes.append(detectable_difference(list(d[0]), test.critical))
    size = float(np.mean([size for size in sizes if size is not None]))
    for _ in range(200):
        d = rng.normal(0, 1, (hypotheses, 12))
        d[0] += size
        (test, *_) = paired_tests(named(d))
        found += test is not None and test.p_adjusted < 0.05
    assert found / 200 == pytest.approx(0.8, abs=0.1)


def test_the_critical_statistic_is_where_the_adjusted_p_crosses_one_in_twenty() -> None:
    rng = np.random.default_rng(6)
    for shift in (0.3, 0.6, 0.9):
        d = rng.normal(shift, 1, (3, 10))
        t = np.abs(stats.ttest_1samp(d, 0, axis=1).statistic)
        tests = [test for test in paired_tests(named(d)) if test is not None]
        strongest = int(np.argmax(t))
        assert (t[strongest] > tests[strongest].critical) == (tests[strongest].p_adjusted < 0.05)
