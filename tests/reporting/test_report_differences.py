from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sweep_folders import make_seed_sweep, make_sweep

from osediff_exp.reporting.arms import Row, make_arm
from osediff_exp.reporting.comparison import ReportSettings, compare, write_comparison
from osediff_exp.reporting.differences import choose_baseline, differences_from
from osediff_exp.reporting.figures import metrics_of
from osediff_exp.reporting.runs import Run
from osediff_exp.reporting.statistics import mean_interval, sign_flip_test
from osediff_exp.reporting.wording import show_difference

PSNR, NIQE = metrics_of([{"psnr": 1.0, "niqe": 1.0}])


def arm(label: str, *seeds: list[float], first_seed: int = 1, **more: Any) -> Row:
    """An arm whose runs have these PSNR values per picture."""
    runs = tuple(
        Run(Path(f"{label}{i}"), f"{label}{i}", "done", (f"seed={first_seed + i}",), result={"psnr": sum(values) / len(values)},
            per_image={f"p{n:02d}": {"psnr": value} | more for n, value in enumerate(values)})
        for i, values in enumerate(seeds)
    )  # fmt: skip
    return make_arm(label, runs, {})


def test_pictures_are_paired_and_seeds_averaged_first() -> None:
    base = arm("base", [20, 30, 25, 22, 28, 24], [22, 32, 27, 24, 30, 26])
    other = arm("other", [21.0, 31.5, 25.5, 23.5, 29.2, 25.1], [23.0, 33.5, 27.5, 25.5, 31.2, 27.1])
    found = differences_from(base, [base, other], [PSNR])
    assert list(found) == [("other", "psnr")]
    difference = found["other", "psnr"]
    expected = [1.0, 1.5, 0.5, 1.5, 1.2, 1.1]
    assert difference.interval.mean == pytest.approx(mean_interval(expected).mean)
    assert difference.interval.low == pytest.approx(mean_interval(expected).low)
    assert (difference.interval.n, difference.num_seeds) == (6, 2)
    assert difference.p == difference.p_holm == sign_flip_test(expected) == 2 / 64
    assert difference.verdict == "better"
    assert difference.over_seeds is not None
    assert difference.over_seeds.n == 2
    assert difference.over_seeds.low == pytest.approx(difference.over_seeds.mean), "both seeds differ by the same"


def test_seeds_that_both_arms_finished_are_used_where_there_are_any() -> None:
    base = arm("base", [10.0] * 6, [20.0] * 6)
    assert differences_from(base, [base, arm("x", [21.0] * 6, first_seed=2)], [PSNR])["x", "psnr"].interval.mean == 1
    apart = differences_from(base, [base, arm("x", [21.0] * 6, first_seed=9)], [PSNR])["x", "psnr"]
    assert (apart.interval.mean, apart.over_seeds) == (6, None)


def test_holm_covers_all_arms_and_metrics() -> None:
    base = arm("base", [20.0] * 8, niqe=5.0)
    values = [20.1, 20.3, 20.2, 20.4, 20.1, 20.2, 20.5, 20.3]
    others = [arm(f"x{i}", values, niqe=5.0) for i in range(3)]
    found = differences_from(base, [base, *others], [PSNR, NIQE])
    assert len(found) == 6
    assert [found[f"x{i}", "psnr"].p_holm for i in range(3)] == pytest.approx([6 * 2 / 256] * 3)
    assert found["x0", "niqe"].verdict == "unclear"
    assert found["x0", "niqe"].p_holm == 1


def test_few_pictures_give_no_test_and_say_so(tmp_path: Path) -> None:
    base = arm("base", [20.0] * 5)
    difference = differences_from(base, [base, arm("x", [21.0, 22.0, 23.0, 24.0, 25.0])], [PSNR])["x", "psnr"]
    assert (difference.p, difference.p_holm, difference.verdict) == (None, None, "untested")
    assert show_difference(PSNR, difference).endswith("n = 5, no test")
    text = write_comparison(make_sweep(tmp_path)).markdown.read_text()
    assert "no test is possible" in text


def test_values_that_are_not_finite_and_pictures_that_one_lacks_are_left_out() -> None:
    base, other = arm("base", [20.0, float("inf"), 22.0]), arm("x", [21.0, 30.0, 24.0, 99.0])
    assert differences_from(base, [base, other], [PSNR])["x", "psnr"].interval.n == 2


def test_the_baseline_is_the_first_arm_or_the_one_that_is_named() -> None:
    rows, reference = [arm("a", [1.0]), arm("b", [1.0])], [Row("bicubic", "reference", {"psnr": 1.0}, {})]
    assert choose_baseline(rows, reference, "") == (rows[0], "")
    assert choose_baseline(rows, reference, "b") == (rows[1], "")
    assert choose_baseline(rows, reference, "bicubic") == (reference[0], "")
    chosen, note = choose_baseline(rows, reference, "bicubi")
    assert chosen is rows[0]
    assert note == "report.baseline: 'bicubi' is the label of no arm. Did you mean 'bicubic'? 'a' is the baseline instead."


def test_arms_can_be_tested_against_bicubic(tmp_path: Path) -> None:
    comparison = compare(make_seed_sweep(tmp_path), ReportSettings(baseline="bicubic"))
    assert {label for label, _ in comparison.differences} == {"without VSD", "with VSD"}
    row = comparison.arms[0]
    assert comparison.differences["without VSD", "psnr"].interval.mean == pytest.approx(row.figures["psnr"] - 23.5)


def test_an_effect_of_half_a_decibel_is_found_and_none_is_not(tmp_path: Path) -> None:
    comparison = compare(make_seed_sweep(tmp_path))
    assert [len(row.done) for row in comparison.arms] == [3, 3]
    assert comparison.differences["with VSD", "psnr"].verdict == "worse"
    assert comparison.differences["with VSD", "niqe"].verdict == "better"
    difference = comparison.differences["with VSD", "psnr"]
    means = [sum(v["psnr"] for v in run.per_image.values()) / 12 for row in comparison.arms for run in row.done]
    assert difference.interval.mean == pytest.approx(sum(means[3:]) / 3 - sum(means[:3]) / 3)
