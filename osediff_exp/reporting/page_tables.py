"""The tables and cards of the page: what stands in every cell. How it looks stands in ``templates/``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from osediff_exp.reporting.figures import Metric, as_number, metric_named, show_interval, show_range
from osediff_exp.reporting.wording import show_claim, show_detectable, show_difference, show_over_seeds, show_test

if TYPE_CHECKING:
    from osediff_exp.reporting.arms import Row
    from osediff_exp.reporting.comparison import Comparison
    from osediff_exp.reporting.differences import Difference

# By verdict and whether it is established over seeds; signs differ in shape, so that they need no colour.
_MARKS = {
    ("better", True): "\u25b2",
    ("better", False): "\u25b3",
    ("worse", True): "\u25bc",
    ("worse", False): "\u25bd",
    ("different", True): "\u25c6",
    ("different", False): "\u25c7",
}


@dataclass(frozen=True)
class Cell:
    """A cell of the results table: mean, half its interval, sort key ("" sorts last), best or not, test, paper's, what is behind."""

    text: str
    half: str = ""
    sort: str = ""
    best: bool = False
    verdict: str = ""
    support: str = ""
    test: str = ""
    published: str = ""
    behind: str = ""

    @property
    def mark(self) -> str:
        """A sign for what the test says: filled if it is established over seeds, hollow if it holds for these networks only."""
        return _MARKS.get((self.verdict, self.support == "seeds"), "")


@dataclass(frozen=True)
class Strip:
    """A difference and its interval to draw: ends and mean in [-1, 1] of the column's largest extent; ``seeds`` are dots beside it.

    A seed that lies farther out than the drawing stands at its edge.
    """

    mean_text: str
    range_text: str
    test: str
    n: int
    detectable: str
    seeds_text: str
    verdict: str
    support: str
    claim: str
    mark: str
    low: float
    mean: float
    high: float
    seeds: list[float]


def result_cell(comparison: Comparison, place: int, metric: Metric) -> Cell:
    """Return the cell of one row and metric."""
    row = comparison.rows[place]
    value = as_number(row.figures.get(metric.key))
    if value is None:
        return Cell("-")
    difference = comparison.differences.get((row.label, metric.key))
    published = comparison.published.get(row.label)
    mean, _, half = (show_interval(metric, row.intervals.get(metric.key)) if row.runs else metric.show(value)).partition(" \u00b1 ")
    return Cell(
        text=mean,
        half=half,
        sort=repr(value),
        best=place in comparison.best[metric.key],
        verdict=difference.verdict if difference else "",
        support=difference.support if difference else "",
        test=_test(metric, difference) if difference else "",
        published=published.printed.get(metric.key, "") if published else "",
        behind=comparison.behind_text(row, metric),
    )


def strips(comparison: Comparison) -> list[tuple[Row, list[Strip | None]]]:
    """Return (arm, one strip per metric) for the arms that have a difference from the baseline."""
    scale = {
        metric.key: max((_extent(one) for (_, key), one in comparison.differences.items() if key == metric.key), default=0.0) or 1.0
        for metric in comparison.metrics
    }
    table = []
    for row in comparison.arms:
        found = [(metric, comparison.differences.get((row.label, metric.key))) for metric in comparison.metrics]
        if any(one for _, one in found):
            table.append((row, [_strip(metric, one, scale[metric.key]) if one else None for metric, one in found]))
    return table


def published_table(comparison: Comparison) -> tuple[list[str], list[tuple[str, str, str, list[tuple[str, str]]]]]:
    """Return headings and, per arm, (label, published name, source and note, [(measured, published)])."""
    metrics = [metric_named(key) for key in dict.fromkeys(key for row in comparison.published.values() for key in row.figures)]
    lines = []
    for row in comparison.arms:
        one = comparison.published.get(row.label)
        if one:
            pairs = [(show_interval(m, row.intervals.get(m.key)), one.show(m.key)) for m in metrics]
            lines.append((row.label, one.name, one.origin, pairs))
    return [f"{metric.title} {metric.arrow}".strip() for metric in metrics], lines


def _extent(difference: Difference) -> float:
    interval = difference.interval
    return max(abs(end) for end in (interval.mean, interval.low, interval.high) if end is not None)


def _test(metric: Metric, difference: Difference) -> str:
    return ": ".join(filter(None, [show_claim(difference), show_difference(metric, difference)]))


def _strip(metric: Metric, difference: Difference, scale: float) -> Strip:
    interval = difference.interval
    low, mean, high = (interval.mean / scale if end is None else end / scale for end in (interval.low, interval.mean, interval.high))
    mean_text, _, range_text = show_range(metric, interval).partition(" ")
    return Strip(
        mean_text=mean_text,
        range_text=range_text,
        test=show_test(difference),
        n=interval.n,
        detectable=show_detectable(difference),
        seeds_text=show_over_seeds(metric, difference),
        verdict=difference.verdict,
        support=difference.support,
        claim=show_claim(difference),
        mark=_MARKS.get((difference.verdict, difference.support == "seeds"), ""),
        low=low,
        mean=mean,
        high=high,
        seeds=[max(-1.0, min(1.0, seed / scale)) for seed in difference.seeds] if len(difference.seeds) > 1 else [],
    )
