from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sweep_folders import config, make_run, make_seed_sweep, make_sweep, result, write_per_image

from osediff_exp.reporting.arms import Row, make_arm
from osediff_exp.reporting.comparison import ReportSettings, compare
from osediff_exp.reporting.differences import Difference, choose_baseline, differences_from
from osediff_exp.reporting.figures import metrics_of
from osediff_exp.reporting.runs import Run
from osediff_exp.reporting.statistics import mean_interval
from osediff_exp.reporting.wording import how_tested, show_claim, show_difference
from osediff_exp.reporting.writing import write_comparison

PSNR, NIQE = metrics_of([{"psnr": 1.0, "niqe": 1.0}])


def arm(label: str, *seeds: list[float], first_seed: int = 1, **more: Any) -> Row:
    """An arm whose runs have these PSNR values per picture."""
    runs = tuple(
        Run(Path(f"{label}{i}"), f"{label}{i}", "done", (f"seed={first_seed + i}",), result={"psnr": sum(values) / len(values)} | more,
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
    assert difference.p == difference.p_adjusted == 2 / 64
    assert (difference.verdict, difference.support) == ("better", "seeds")
    assert difference.over_seeds is not None
    assert difference.over_seeds.n == 2
    assert difference.over_seeds.low == pytest.approx(difference.over_seeds.mean), "both seeds differ by the same"


def test_seeds_that_both_arms_finished_are_used_where_there_are_any() -> None:
    base = arm("base", [10.0] * 6, [20.0] * 6)
    assert differences_from(base, [base, arm("x", [21.0] * 6, first_seed=2)], [PSNR])["x", "psnr"].interval.mean == 1
    apart = differences_from(base, [base, arm("x", [21.0] * 6, first_seed=9)], [PSNR])["x", "psnr"]
    assert (apart.interval.mean, apart.over_seeds) == (6, None)


def test_p_is_adjusted_for_all_arms_and_metrics() -> None:
    base = arm("base", [20.0] * 8, niqe=5.0)
    values = [20.1, 20.3, 20.2, 20.4, 20.1, 20.2, 20.5, 19.9]
    others = [arm("x2", values, niqe=5.0), arm("x0", values[3:] + values[:3], niqe=5.0), arm("x1", values[5:] + values[:5], niqe=5.0)]
    found = differences_from(base, [base, *others], [PSNR, NIQE])
    assert len(found) == 6
    alone = differences_from(base, [base, others[0]], [PSNR])["x2", "psnr"]
    assert alone.p == alone.p_adjusted == found["x2", "psnr"].p
    assert found["x2", "psnr"].p_adjusted > alone.p_adjusted
    assert (found["x0", "niqe"].verdict, found["x0", "niqe"].p_adjusted) == ("unclear", 1)


def test_a_verdict_is_established_only_if_the_seeds_agree() -> None:
    gains = [0.5, 0.7, 0.6, 0.8, 0.4, 0.6, 0.5, 0.7]

    def better_by(*by_seed: float, shared: bool = True) -> Difference:
        base = arm("base", *[[20.0] * 8 for _ in by_seed])
        other = arm("x", *[[20 + by + gain for gain in gains] for by in by_seed], first_seed=1 if shared else 9)
        return differences_from(base, [base, other], [PSNR])["x", "psnr"]

    same, apart, single, unshared = better_by(0, 0.05, -0.05), better_by(0.5, -0.5), better_by(0), better_by(0, 0, shared=False)
    assert {one.verdict for one in (same, apart, single, unshared)} == {"better"}, "the pictures' test is the same for all"
    assert [one.support for one in (same, apart, single, unshared)] == ["seeds", "not over seeds", "one seed", "no shared seeds"]
    assert [show_claim(one) for one in (same, apart)] == ["better", "better here, not over seeds"]
    assert same.over_seeds is not None
    low, high = stats.t.interval(0.95, 2, loc=0.6, scale=0.05 / np.sqrt(3))
    assert (same.over_seeds.low, same.over_seeds.high) == (pytest.approx(low), pytest.approx(high))


def test_what_the_pictures_cannot_find_is_said(tmp_path: Path) -> None:
    sentences = " ".join(how_tested(compare(make_seed_sweep(tmp_path, seeds=2))))
    assert "adjusted for all 4 comparisons" in sentences
    assert "With 12 pictures the smallest p that it can give is 0.00049" in sentences
    assert "not that there is no effect" in sentences
    assert "Two seeds give a very wide interval" in sentences


def test_few_pictures_give_no_test_and_say_so(tmp_path: Path) -> None:
    base = arm("base", [20.0] * 5)
    difference = differences_from(base, [base, arm("x", [21.0, 22.0, 23.0, 24.0, 25.0])], [PSNR])["x", "psnr"]
    assert (difference.p, difference.p_adjusted, difference.verdict) == (None, None, "untested")
    assert show_difference(PSNR, difference).endswith("n = 5, no test")
    text = write_comparison(make_sweep(tmp_path)).markdown.read_text()
    assert "no test is possible" in text


def test_values_that_are_not_finite_and_pictures_that_one_lacks_are_left_out() -> None:
    base, other = arm("base", [20.0, 21.0, 22.0]), arm("x", [21.0, 30.0, 24.0, 99.0])
    for row, name, value in ((base, "p01", float("inf")), (other, "p02", float("nan"))):
        row.runs[0].per_image[name]["psnr"] = value
    assert differences_from(base, [base, other], [PSNR])["x", "psnr"].interval.n == 1


def test_a_seed_without_a_finite_figure_is_left_out_and_the_others_keep_their_difference() -> None:
    base, other = (arm(label, *[[20.0 + gain] * 8] * 3) for label, gain in (("base", 0.0), ("x", 1.0)))
    other.runs[1].result["psnr"] = None
    other.runs[1].per_image["p00"]["psnr"] = float("nan")
    difference = differences_from(base, [base, other], [PSNR])["x", "psnr"]
    assert (difference.interval.mean, difference.num_pictures, difference.num_seeds, len(difference.seeds)) == (1, 8, 2, 2)


def test_what_is_left_of_a_restorer_that_failed_gets_no_verdict() -> None:
    base, failed = arm("base", [20.0] * 8, niqe=5.0), arm("x", [21.0] * 7, niqe=4.0)
    del failed.runs[0].result["psnr"]
    assert list(differences_from(base, [base, failed], [PSNR, NIQE])) == [("x", "niqe")]
    assert list(differences_from(failed, [base, failed], [PSNR, NIQE])) == [("base", "niqe")]


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
    difference = comparison.differences["without VSD", "psnr"]
    assert difference.interval.mean == pytest.approx(row.figures["psnr"] - 23.5)
    assert difference.seeds == pytest.approx([run.result["psnr"] - 23.5 for run in row.done]), "bicubic is the same for every seed"


def test_an_effect_of_half_a_decibel_is_found_and_none_is_not(tmp_path: Path) -> None:
    comparison = compare(make_seed_sweep(tmp_path))
    assert [len(row.done) for row in comparison.arms] == [3, 3]
    assert comparison.differences["with VSD", "psnr"].verdict == "worse"
    assert comparison.differences["with VSD", "niqe"].verdict == "better"
    difference = comparison.differences["with VSD", "psnr"]
    means = [sum(v["psnr"] for v in run.per_image.values()) / 12 for row in comparison.arms for run in row.done]
    assert difference.interval.mean == pytest.approx(sum(means[3:]) / 3 - sum(means[:3]) / 3)


def test_a_baseline_may_write_its_numbers_in_another_way(tmp_path: Path) -> None:
    for number, rate in enumerate(("1e-05", "5e-05")):
        make_run(tmp_path, number, [f"optimizer.lr={rate}"], result=result(25, 0.7, 5, 0.3))
    found = compare(tmp_path, ReportSettings(labels={"optimizer.lr": "lr"}, baseline="lr = 5.0e-5")).baseline
    assert found is not None
    assert found.label == "lr = 5e-05"


def test_crops_of_one_photo_count_as_one() -> None:
    def of(label: str, values: dict[str, float]) -> Row:
        run = Run(Path(label), label, "done", result={"psnr": 1.0}, per_image={name: {"psnr": value} for name, value in values.items()})
        return make_arm(label, (run,), {})

    gains = {f"photo{photo}_{crop}": photo + 0.1 * crop for photo in range(8) for crop in range(3)}
    base = of("base", dict.fromkeys(gains, 20.0))
    difference = differences_from(base, [base, of("x", {name: 20 + gain for name, gain in gains.items()})], [PSNR])["x", "psnr"]
    expected = mean_interval([photo + 0.1 for photo in range(8)])
    assert (difference.interval.n, difference.num_pictures) == (8, 24)
    assert difference.interval.low == pytest.approx(expected.low)
    assert difference.interval.mean == pytest.approx(expected.mean)


def test_the_same_difference_on_every_crop_is_known_for_sure_however_many_crops_photos_have() -> None:
    gains = {f"photo{photo}_{crop}": 0.5 for photo, size in enumerate((1, 16, 3, 9, 2, 5, 12, 7)) for crop in range(size)}

    def of(label: str, gain: float) -> Row:
        run = Run(Path(label), label, "done", result={"psnr": 1.0}, per_image={name: {"psnr": 20.0 + gain} for name in gains})
        return make_arm(label, (run,), {})

    base = of("base", 0.0)
    difference = differences_from(base, [base, of("x", 0.5)], [PSNR])["x", "psnr"]
    assert (difference.interval.low, difference.interval.mean, difference.interval.high) == (0.5, 0.5, 0.5)
    assert (difference.interval.n, difference.num_pictures, difference.detectable) == (8, 55, 0)
    assert (difference.p, difference.verdict) == (2 / 2**8, "better")


def test_no_difference_says_how_large_a_one_it_could_have_seen() -> None:
    rng = np.random.default_rng(4)
    base = arm("base", *[[20.0] * 12] * 3)
    gains = [float(gain) for gain in rng.normal(0, 0.1, 12)]
    other = arm("x", *[[20 + gain + shift for gain in gains] for shift in (-0.02, 0.0, 0.02)])
    difference = differences_from(base, [base, other], [PSNR])["x", "psnr"]
    assert difference.verdict == "unclear"
    multiplier = stats.t.ppf(0.8, 11) + stats.t.ppf(0.975, 11)
    assert difference.detectable == pytest.approx(multiplier * stats.sem(gains), rel=0.1), "one comparison: about Student's level"
    assert difference.detectable_over_seeds == pytest.approx((stats.t.ppf(0.8, 2) + stats.t.ppf(0.975, 2)) * 0.02 / np.sqrt(3))
    shown = show_difference(PSNR, difference)
    assert f"could see {difference.detectable:.2g}" in shown
    assert shown.endswith(f"could see {difference.detectable_over_seeds:.2g}")


def test_the_reports_say_what_they_could_have_seen(tmp_path: Path) -> None:
    for number in range(2):
        run = make_run(tmp_path, number, [f"a={number}"], result=result(25, 0.7, 5, 0.3), config=config(a=number))
        noise = np.random.default_rng(number).normal(size=(9, 4))
        write_per_image(run, {f"p{k}": list(map(float, line)) for k, line in enumerate(noise)})
    text = write_comparison(tmp_path).markdown.read_text()
    assert len(re.findall(r"p = 0\.\d+, could see \d", text)) == 4
    assert "the smallest true difference that this design finds with a probability of 80%" in text
    assert "could see" in (tmp_path / "report.html").read_text()


def test_figures_of_the_set_are_tested_by_their_contributions(tmp_path: Path) -> None:
    (kid,) = metrics_of([{"kid": 0.1, "kid_se": 0.01, "bicubic_kid": 0.2, "bicubic_kid_se": 0.01}])
    base = Run(Path("b"), "b", "done", result={"kid": 0.3}, per_image={f"p{k}": {"kid": 0.2 + 0.02 * k} for k in range(11)})
    other = Run(Path("o"), "o", "done", result={"kid": 0.1}, per_image={f"p{k}": {"kid": 0.01 * k} for k in range(11)})
    arms = [make_arm("b", (base,), {}), make_arm("o", (other,), {})]
    difference = differences_from(arms[0], arms, [kid])["o", "kid"]
    assert difference.interval.mean == pytest.approx(-0.25), "of the means of the contributions, which are the sets' figures"
    assert difference.verdict == "better"
