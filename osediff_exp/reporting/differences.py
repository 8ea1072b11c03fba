"""How far every arm lies from the baseline arm, picture by picture, and whether that could be chance."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import isfinite
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from osediff_exp.errors import nearest
from osediff_exp.photo_units import by_photo, photo_totals, photo_weights, photos_of
from osediff_exp.reporting.figures import as_number
from osediff_exp.reporting.inputs import seen, tested_on
from osediff_exp.reporting.statistics import ALPHA, MIN_PAIRS, Interval, detectable_difference, mean_interval, paired_tests

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from osediff_exp.reporting.arms import Row
    from osediff_exp.reporting.figures import Metric
    from osediff_exp.reporting.runs import Run

Verdict = Literal["better", "worse", "different", "unclear", "untested"]
Support = Literal["seeds", "one seed", "not over seeds", "no shared seeds", ""]
PerImage = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Difference:
    """Arm minus baseline in one metric.

    Attributes:
        interval: the mean over pictures of the per-picture difference (averaged over seeds first), its 95 % interval, n photos: crops of
            one photo are not independent, they count as one.
        num_pictures: behind the mean.
        num_seeds: seeds behind each picture's difference.
        seeds: the mean over pictures, seed by seed, for the seeds that both finished.
        p: of the paired sign-flip test; None with too few pictures.
        p_adjusted: p adjusted for all arms and metrics of the table.
        verdict: better or worse (different, where the metric has no direction) if p_adjusted < 0.05, else unclear; untested without p.
        detectable: the smallest true difference that the test over photos would have found with a probability of 0.8; None without one.
    """

    interval: Interval
    num_pictures: int
    num_seeds: int
    seeds: tuple[float, ...] = ()
    p: float | None = None
    p_adjusted: float | None = None
    verdict: Verdict = "untested"
    detectable: float | None = None

    @property
    def detectable_over_seeds(self) -> float | None:
        """The same over ``seeds``, for their interval to leave out 0; None with fewer than 2."""
        return detectable_difference(self.seeds)

    @property
    def over_seeds(self) -> Interval | None:
        """The mean of ``seeds`` and its 95 % interval; None with fewer than 2."""
        return mean_interval(self.seeds) if len(self.seeds) > 1 else None

    @property
    def support(self) -> Support:
        """What a verdict rests on: "seeds" if the interval over seeds leaves out 0 on the same side, else what it lacks.

        The pictures' test speaks about the trained networks at hand; only seeds say what training anew would give. "" without a verdict.
        """
        one = self.over_seeds
        if self.verdict in ("unclear", "untested"):
            return ""
        if one is None or one.low is None or one.high is None:
            return "one seed" if self.num_seeds == 1 else "no shared seeds"
        return "seeds" if one.low > 0 < self.interval.mean or one.high < 0 > self.interval.mean else "not over seeds"


def choose_baseline(arms: Sequence[Row], references: Sequence[Row], wanted: str) -> tuple[Row | None, str]:
    """Return the baseline row (the first arm unless ``wanted`` names a row by its label) and a line on what is odd about that."""
    rows = {row.label: row for row in [*arms, *references]}
    row = rows.get(wanted) or _same_but_for_numbers(rows, wanted) if wanted else next(iter(arms), None)
    if row is None:
        first = next(iter(arms), None)
        instead = f" '{first.label}' is the baseline instead." if first else ""
        return first, f"report.baseline: '{wanted}' is the label of no arm.{nearest(wanted, rows)}{instead}"
    if not row.figures and any(arm.done for arm in arms):
        return row, f"The baseline '{row.label}' has not finished, so no differences are shown; another can be named by report.baseline."
    return row, ""


def _same_but_for_numbers(rows: Mapping[str, Row], wanted: str) -> Row | None:
    """Return the row whose label says the same number in other words: 1e-05 is 1.0e-5."""
    return next((row for label, row in rows.items() if _plain_numbers(label) == _plain_numbers(wanted)), None)


def _plain_numbers(text: str) -> str:
    return re.sub(r"(?<![\w.])\d+(\.\d*)?([eE][+-]?\d+)?(?![\w.])", lambda match: repr(float(match[0])), text)


def differences_from(baseline: Row | None, arms: Sequence[Row], metrics: Sequence[Metric]) -> dict[tuple[str, str], Difference]:
    """Return (arm label, metric key) -> difference, for every arm but the baseline; the adjustment of p covers them all.

    An arm that was tested on other originals has none: pictures that share but their names are no pairs. A run whose own result lacks a
    figure (it is not finite, or its restorer failed on the way) takes no part in that metric: what some of its pictures say is not its own.
    """
    if baseline is None:
        return {}
    photos = photos_of(dict.fromkeys(name for row in [baseline, *arms] for table in _tables(row) for name in table))
    found: dict[tuple[str, str], tuple[Difference, dict[str, float]]] = {}
    for arm in (arm for arm in arms if arm is not baseline and _can_be_paired(arm, baseline)):
        for metric in metrics:
            mine, theirs, num_seeds = _paired_pictures(arm, baseline, metric.key)
            pictures = _per_picture(mine, theirs, metric.key)
            if pictures:
                over = mean_interval(list(by_photo(pictures, photos).values()))
                one = Difference(over, len(pictures), num_seeds, _by_shared_seed(arm, baseline, metric.key))
                found[arm.label, metric.key] = one, pictures
    return _tested(found, {metric.key: metric for metric in metrics}, photos)


def _tables(row: Row) -> list[PerImage]:
    return [row.inputs, *(run.per_image for run in row.done)]


def _can_be_paired(arm: Row, baseline: Row) -> bool:
    one, other = tested_on(arm), tested_on(baseline)
    return one is None or other is None or seen(one, other) != "other originals"


def _per_picture(mine: PerImage, theirs: PerImage, key: str) -> dict[str, float]:
    nan = float("nan")
    values = {name: mine[name].get(key, nan) - theirs[name].get(key, nan) for name in mine if name in theirs}
    return {name: value for name, value in values.items() if isfinite(value)}


def _tested(
    found: Mapping[tuple[str, str], tuple[Difference, dict[str, float]]], metrics: Mapping[str, Metric], photos: Mapping[str, str]
) -> dict[tuple[str, str], Difference]:
    pictures = [values for _, values in found.values()]
    tests = paired_tests([photo_totals(values, photos) for values in pictures], [photo_weights(values, photos) for values in pictures])
    tested = {}
    for (key, (one, values)), test in zip(found.items(), tests, strict=True):
        if test:
            verdict = _verdict(metrics[key[1]], one.interval.mean, test.p_adjusted)
            detectable = detectable_difference(list(by_photo(values, photos).values()), test.critical)
            one = replace(one, p=test.p, p_adjusted=test.p_adjusted, verdict=verdict, detectable=detectable)
        tested[key] = one
    return tested


def _verdict(metric: Metric, mean: float, p: float) -> Verdict:
    if p >= ALPHA:
        return "unclear"
    if metric.better == "unknown":
        return "different"
    return "better" if (mean > 0) == (metric.better == "higher") else "worse"


def _paired_pictures(arm: Row, baseline: Row, key: str) -> tuple[PerImage, PerImage, int]:
    """Return both sides' figures of the pictures that both have, averaged over seeds: those that both finished, else all of each."""
    ours, theirs = _by_seed(arm, key), _by_seed(baseline, key)
    shared = ours.keys() & theirs.keys()
    chosen = [run.per_image for seed, run in ours.items() if not shared or seed in shared]
    others = [run.per_image for seed, run in theirs.items() if not shared or seed in shared]
    one, other = _average(chosen, key), baseline.inputs or _average(others, key)
    names = [name for name in one if name in other]
    return {name: one[name] for name in names}, {name: other[name] for name in names}, len(chosen)


def _by_shared_seed(arm: Row, baseline: Row, key: str) -> tuple[float, ...]:
    """Return the mean difference of every seed that both finished; a reference (bicubic) is the same for every seed."""
    ours, theirs = _by_seed(arm, key), _by_seed(baseline, key)
    means = []
    for seed, run in ours.items():
        other = baseline.inputs or (theirs[seed].per_image if seed in theirs else {})
        values = _per_picture(run.per_image, other, key).values()
        means += [fmean(values)] if values else []
    return tuple(means)


def _by_seed(row: Row, key: str) -> dict[object, Run]:
    """Return the runs that have pictures and a finite figure of their own."""
    whole = [run for run in row.done if run.per_image and as_number(run.result.get(key)) is not None]
    return {run.name if run.seed is None else run.seed: run for run in whole}


def _average(tables: Sequence[PerImage], key: str) -> PerImage:
    """Return name -> ``key`` -> its mean over the tables, for the names that all of them have; without a figure where one lacks it."""
    if not tables:
        return {}
    names = [name for name in tables[0] if all(name in table for table in tables)]
    whole = {name: all(key in table[name] for table in tables) for name in names}
    return {name: {key: fmean(table[name][key] for table in tables)} if whole[name] else {} for name in names}


def too_few_pictures(differences: Mapping[tuple[str, str], Difference]) -> bool:
    """Tell whether differences exist that could not be tested because there are fewer than ``MIN_PAIRS`` photos."""
    return any(difference.interval.n < MIN_PAIRS for difference in differences.values())
