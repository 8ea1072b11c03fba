"""How far every arm lies from the baseline arm, picture by picture, and whether that could be chance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from osediff_exp.errors import nearest
from osediff_exp.reporting.statistics import ALPHA, MIN_PAIRS, Interval, holm, mean_interval, sign_flip_test

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from osediff_exp.reporting.arms import Row
    from osediff_exp.reporting.figures import Metric
    from osediff_exp.reporting.runs import Run

Verdict = Literal["better", "worse", "different", "unclear", "untested"]
PerImage = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Difference:
    """Arm minus baseline in one metric.

    Attributes:
        interval: the mean over pictures of the per-picture difference (averaged over seeds first), its 95 % interval, n pictures.
        num_seeds: seeds behind each picture's difference.
        over_seeds: the mean over pictures seed by seed, and its 95 % interval over the seeds that both finished; None with fewer than 2.
        p: of the paired sign-flip test; None with too few pictures.
        p_holm: p corrected for all arms and metrics of the table.
        verdict: better or worse (different, where the metric has no direction) if p_holm < 0.05, else unclear; untested without p.
    """

    interval: Interval
    num_seeds: int
    p: float | None
    over_seeds: Interval | None = None
    p_holm: float | None = None
    verdict: Verdict = "untested"


def choose_baseline(arms: Sequence[Row], references: Sequence[Row], wanted: str) -> tuple[Row | None, str]:
    """Return the baseline row (the first arm unless ``wanted`` names a row by its label) and a line on what is odd about that."""
    rows = {row.label: row for row in [*arms, *references]}
    row = rows.get(wanted) if wanted else next(iter(arms), None)
    if row is None:
        first = next(iter(arms), None)
        instead = f" '{first.label}' is the baseline instead." if first else ""
        return first, f"report.baseline: '{wanted}' is the label of no arm.{nearest(wanted, rows)}{instead}"
    if not row.figures and any(arm.done for arm in arms):
        return row, f"The baseline '{row.label}' has not finished, so no differences are shown; another can be named by report.baseline."
    return row, ""


def differences_from(baseline: Row | None, arms: Sequence[Row], metrics: Sequence[Metric]) -> dict[tuple[str, str], Difference]:
    """Return (arm label, metric key) -> difference, for every arm but the baseline; Holm's correction covers them all."""
    if baseline is None:
        return {}
    found: dict[tuple[str, str], Difference] = {}
    for arm in (arm for arm in arms if arm is not baseline):
        mine, theirs, num_seeds = _paired_pictures(arm, baseline)
        for metric in metrics:
            values = _per_picture(mine, theirs, metric.key)
            if values:
                over_seeds = _over_seeds(arm, baseline, metric.key)
                found[arm.label, metric.key] = Difference(mean_interval(values), num_seeds, sign_flip_test(values), over_seeds)
    return _corrected(found, {metric.key: metric for metric in metrics})


def _per_picture(mine: PerImage, theirs: PerImage, key: str) -> list[float]:
    nan = float("nan")
    values = [mine[name].get(key, nan) - theirs[name].get(key, nan) for name in mine if name in theirs]
    return [value for value in values if isfinite(value)]


def _corrected(found: dict[tuple[str, str], Difference], metrics: Mapping[str, Metric]) -> dict[tuple[str, str], Difference]:
    tested = [key for key, difference in found.items() if difference.p is not None]
    adjusted = holm([p for key in tested if (p := found[key].p) is not None])
    for key, p_holm in zip(tested, adjusted, strict=True):
        verdict = _verdict(metrics[key[1]], found[key].interval.mean, p_holm)
        found[key] = replace(found[key], p_holm=p_holm, verdict=verdict)
    return found


def _verdict(metric: Metric, mean: float, p: float) -> Verdict:
    if p >= ALPHA:
        return "unclear"
    if metric.better == "unknown":
        return "different"
    return "better" if (mean > 0) == (metric.better == "higher") else "worse"


def _paired_pictures(arm: Row, baseline: Row) -> tuple[PerImage, PerImage, int]:
    """Return both sides' figures of the pictures that both have, averaged over seeds: those that both finished, else all of each."""
    ours, theirs = _by_seed(arm), _by_seed(baseline)
    shared = ours.keys() & theirs.keys()
    chosen = [run.per_image for seed, run in ours.items() if not shared or seed in shared]
    others = [run.per_image for seed, run in theirs.items() if not shared or seed in shared]
    one, other = _average(chosen), baseline.inputs or _average(others)
    names = [name for name in one if name in other]
    return {name: one[name] for name in names}, {name: other[name] for name in names}, len(chosen)


def _over_seeds(arm: Row, baseline: Row, key: str) -> Interval | None:
    ours, theirs = _by_seed(arm), _by_seed(baseline)
    means = []
    for seed in ours.keys() & theirs.keys():
        values = _per_picture(ours[seed].per_image, theirs[seed].per_image, key)
        means += [fmean(values)] if values else []
    return mean_interval(means) if len(means) > 1 else None


def _by_seed(row: Row) -> dict[object, Run]:
    return {run.name if run.seed is None else run.seed: run for run in row.done if run.per_image}


def _average(tables: Sequence[PerImage]) -> PerImage:
    """Return name -> figure -> mean over the tables, for names and figures that all of them have."""
    if not tables:
        return {}
    names = [name for name in tables[0] if all(name in table for table in tables)]
    keys = {name: set.intersection(*(set(table[name]) for table in tables)) for name in names}
    return {name: {key: fmean(table[name][key] for table in tables) for key in sorted(keys[name])} for name in names}


def too_few_pictures(differences: Mapping[tuple[str, str], Difference]) -> bool:
    """Tell whether differences exist that could not be tested because there are fewer than ``MIN_PAIRS`` pictures."""
    return any(difference.interval.n < MIN_PAIRS for difference in differences.values())
