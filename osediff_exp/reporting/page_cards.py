"""The cards at the top of the page: who is best in each metric, and what may be said about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from osediff_exp.reporting.figures import Metric, show_interval, show_range
from osediff_exp.reporting.wording import show_detectable, show_over_seeds, show_test

if TYPE_CHECKING:
    from osediff_exp.reporting.arms import Row
    from osediff_exp.reporting.comparison import Comparison
    from osediff_exp.reporting.differences import Difference


@dataclass(frozen=True)
class Card:
    """The winner in one metric and what may be said about it."""

    metric: Metric
    value: str
    arms: list[Row]
    verdict: str
    lines: list[str] = field(default_factory=list)


def cards(comparison: Comparison) -> list[Card]:
    """Return metric by metric the best arms, where at least two arms can be compared, and whether the lead is more than chance."""
    if sum(bool(row.done) for row in comparison.arms) < 2:
        return []
    return [_card(comparison, metric) for metric in comparison.metrics if comparison.best[metric.key]]


def _card(comparison: Comparison, metric: Metric) -> Card:
    places = sorted(comparison.best[metric.key])
    arms = [comparison.rows[place] for place in places]
    value = show_interval(metric, arms[0].intervals.get(metric.key))
    baseline, rest = comparison.baseline, {label: one for (label, key), one in comparison.differences.items() if key == metric.key}
    if baseline is None or not rest:
        return Card(metric, value, arms, "untested", ["not tested"])
    if arms[0] is baseline:
        return Card(metric, value, arms, *_beside_others(list(rest.values())))
    difference = rest.get(arms[0].label)
    if difference is None:
        return Card(metric, value, arms, "untested", ["not tested"])
    test = ", ".join(filter(None, [show_test(difference), show_detectable(difference)]))
    lines = [_against(baseline.label, difference), show_range(metric, difference.interval), test]
    return Card(metric, value, arms, _card_style(difference), [*lines, *filter(None, [show_over_seeds(metric, difference)])])


def _beside_others(rest: list[Difference]) -> tuple[str, list[str]]:
    """Return a card's style and lines where the baseline itself is the best: how many of the others are significantly worse."""
    if all(one.verdict == "untested" for one in rest):
        return "untested", ["the baseline itself", "too few pictures for a test"]
    worse = [one for one in rest if one.verdict == "worse"]
    firm = sum(one.support == "seeds" for one in worse)
    style = "better" if firm == len(rest) else "hint" if len(worse) == len(rest) else "unclear"
    return style, ["the baseline itself", f"{len(worse)} of {len(rest)} other arms worse on these pictures, {firm} established over seeds"]


def _against(label: str, difference: Difference) -> str:
    if difference.verdict == "untested":
        return f"against {label}, too few pictures for a test"
    if difference.verdict == "unclear":
        return f"no clear difference from {label}"
    if difference.support == "seeds":
        return f"{difference.verdict} than {label}"
    lacking = {"one seed": "one seed only", "no shared seeds": "the arms share no seeds"}
    why = lacking.get(difference.support, "not established over seeds")
    return f"{difference.verdict} than {label} on these pictures; {why}"


def _card_style(difference: Difference) -> str:
    return "hint" if difference.support not in ("seeds", "") else difference.verdict
