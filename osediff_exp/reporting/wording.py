"""Sentences and texts that every kind of report shares, so that a number is written with the same caution everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from osediff_exp.reporting.differences import too_few_pictures
from osediff_exp.reporting.figures import show_p, show_range
from osediff_exp.reporting.statistics import MIN_PAIRS

if TYPE_CHECKING:
    from osediff_exp.reporting.comparison import Comparison
    from osediff_exp.reporting.differences import Difference
    from osediff_exp.reporting.figures import Metric


def method_note(comparison: Comparison) -> str:
    """Return the sentence that says what the intervals mean and where there are none; the same in every kind of report."""
    counts = {len(row.done) for row in comparison.arms if row.done}
    if not counts:
        return "No arm has finished yet."
    if counts == {1}:
        return "Every arm is one run (one seed), so there is no interval over seeds: what another seed would give is unknown."
    single = " An arm with one finished seed has no interval." if 1 in counts else ""
    return f"Figures are means over seeds with Student's 95 % interval.{single}"


def how_tested(comparison: Comparison) -> str:
    """Return the sentences that say how differences were tested, or why they were not."""
    if not comparison.differences or comparison.baseline is None:
        return ""
    text = (
        f"Arm minus '{comparison.baseline.label}', averaged over pictures (seeds averaged first), with Student's 95 % interval over "
        "pictures; p of the paired sign-flip test, corrected by Holm's method for all arms and metrics of this table."
    )
    if too_few_pictures(comparison.differences):
        text += f" Fewer than {MIN_PAIRS} pictures: no test is possible (its p could never fall below 0.05)."
    if any(difference.over_seeds for difference in comparison.differences.values()):
        text += " The interval after 'seeds' is that of the same difference over seeds: where it holds 0, other seeds may turn it round."
    if not comparison.has_seeds:
        text += " With one seed the test speaks about these trained networks, not about what another seed would give."
    return text


def show_difference(metric: Metric, difference: Difference | None) -> str:
    """Write a difference as it may stand: with its interval, number of pictures and corrected p, or the reason for having none."""
    if difference is None:
        return "-"
    seeds = show_over_seeds(metric, difference)
    return f"{show_range(metric, difference.interval)}, n = {difference.interval.n}, {show_test(difference)}{seeds and f'; {seeds}'}"


def show_over_seeds(metric: Metric, difference: Difference) -> str:
    """Write the interval over seeds of a difference ("3 seeds: [-0.70, -0.49]"), or "" where one seed gives none."""
    one = difference.over_seeds
    if one is None or one.low is None:
        return ""
    digits = metric.digits + 1
    return f"{one.n} seeds: [{one.low:+.{digits}f}, {one.high:+.{digits}f}]"


def show_test(difference: Difference) -> str:
    """Write the corrected p of a difference ("p = 0.031"), or that there is no test."""
    if difference.p_holm is None:
        return "no test"
    p = show_p(difference.p_holm)
    return f"p {p}" if p.startswith("<") else f"p = {p}"
