"""The tables and cards of the page: what stands in every cell. How it looks stands in ``templates/``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from osediff_exp.reporting.figures import Metric, as_number, show_figure, show_interval, show_range
from osediff_exp.reporting.wording import show_difference, show_over_seeds, show_test

if TYPE_CHECKING:
    from osediff_exp.reporting.arms import Row
    from osediff_exp.reporting.comparison import Comparison
    from osediff_exp.reporting.differences import Difference

_ENVIRONMENT = ("task", "version", "commit", "machine", "device", "python", "torch", "backbone_fingerprint")
# The costs people ask for, in this order, with their headings; other numbers stand under "other figures".
_COSTS = {
    "train_seconds": "Training",
    "seconds": "Whole run",
    "peak_memory_gib": "Peak memory (GiB)",
    "params_trainable": "Trainable parameters",
    "trainable_parameters": "Trainable parameters",
    "params_trainable_generator": "... of the generator",
    "train_images_per_second": "Images/s (training)",
    "images_per_second": "Images/s",
}
_SHORT_COMMIT = 10


@dataclass(frozen=True)
class Cell:
    """A cell of the results table: the mean, half its interval, sort key ("" sorts last), best or not, test against the baseline."""

    text: str
    half: str = ""
    sort: str = ""
    best: bool = False
    verdict: str = ""
    test: str = ""
    published: str = ""


@dataclass(frozen=True)
class Strip:
    """A difference and its interval to draw: ends and mean in [-1, 1] of the column's largest extent."""

    text: str
    test: str
    n: int
    seeds: str
    verdict: str
    low: float
    mean: float
    high: float


@dataclass(frozen=True)
class Card:
    """The winner in one metric and what may be said about it."""

    metric: Metric
    value: str
    arms: list[Row]
    verdict: str
    lines: list[str] = field(default_factory=list)


def result_cell(comparison: Comparison, place: int, metric: Metric) -> Cell:
    """Return the cell of one row and metric."""
    row = comparison.rows[place]
    value = as_number(row.figures.get(metric.key))
    if value is None:
        return Cell("-")
    difference = comparison.differences.get((row.label, metric.key))
    published = comparison.published.get(row.label)
    printed = published.figures.get(metric.key) if published else None
    mean, _, half = (show_interval(metric, row.intervals.get(metric.key)) if row.runs else metric.show(value)).partition(" \u00b1 ")
    return Cell(
        text=mean,
        half=half,
        sort=repr(value),
        best=place in comparison.best[metric.key],
        verdict=difference.verdict if difference else "",
        test=show_difference(metric, difference) if difference else "",
        published="" if printed is None else metric.show(printed),
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


def cards(comparison: Comparison) -> list[Card]:
    """Return metric by metric the best arms, where at least two arms can be compared, and whether the lead is more than chance."""
    if sum(bool(row.done) for row in comparison.arms) < 2:
        return []
    return [_card(comparison, metric) for metric in comparison.metrics if comparison.best[metric.key]]


def published_table(comparison: Comparison) -> tuple[list[str], list[tuple[str, str, str, list[tuple[str, str]]]]]:
    """Return headings and, per arm, (label, published name, source and note, [(measured, published)])."""
    known = {metric.key: metric for metric in comparison.metrics}
    keys = list(dict.fromkeys(key for row in comparison.published.values() for key in row.figures))
    lines = []
    for row in comparison.arms:
        one = comparison.published.get(row.label)
        if one:
            pairs = [(_measured(row, known.get(key)), f"{one.figures[key]:g}" if key in one.figures else "-") for key in keys]
            lines.append((row.label, one.name, ", ".join(filter(None, [one.source, one.note])), pairs))
    return [f"{known[key].title} {known[key].arrow}".strip() if key in known else key.upper() for key in keys], lines


def cost_table(comparison: Comparison) -> dict[str, list[tuple[str, str]]]:
    """Return heading -> (text, sort key) per arm for time, memory, parameters and speed, means over seeds."""
    table: dict[str, list[tuple[str, str]]] = {}
    for key, title in _COSTS.items():
        values = [row.figures.get(key) for row in comparison.arms]
        if title not in table and any(value is not None for value in values):
            table[title] = [(_cost(key, value), repr(number) if (number := as_number(value)) is not None else "") for value in values]
    return table


def figure_table(comparison: Comparison, *, environment: bool) -> dict[str, list[str]]:
    """Return figure -> text per arm: texts and the known names describe the environment, the rest are other figures."""
    shown = {metric.key for metric in comparison.metrics} | _COSTS.keys()
    table = {}
    for key in dict.fromkeys(key for row in comparison.arms for key in row.figures if key not in shown):
        values = [row.figures.get(key) for row in comparison.arms]
        if (key in _ENVIRONMENT or all(as_number(value) is None for value in values)) == environment:
            table[key] = [_short_commit(value) if key == "commit" else show_figure(key, value) for value in values]
    return table


def _extent(difference: Difference) -> float:
    interval = difference.interval
    return max(abs(end) for end in (interval.mean, interval.low, interval.high) if end is not None)


def _strip(metric: Metric, difference: Difference, scale: float) -> Strip:
    interval = difference.interval
    low, mean, high = (interval.mean / scale if end is None else end / scale for end in (interval.low, interval.mean, interval.high))
    return Strip(
        show_range(metric, interval),
        show_test(difference),
        interval.n,
        show_over_seeds(metric, difference),
        difference.verdict,
        low,
        mean,
        high,
    )


def _card(comparison: Comparison, metric: Metric) -> Card:
    places = sorted(comparison.best[metric.key])
    arms = [comparison.rows[place] for place in places]
    value = show_interval(metric, arms[0].intervals.get(metric.key))
    baseline, rest = comparison.baseline, {label: one for (label, key), one in comparison.differences.items() if key == metric.key}
    if baseline is None or not rest:
        return Card(metric, value, arms, "untested", ["not tested"])
    if arms[0] is baseline:
        if all(one.verdict == "untested" for one in rest.values()):
            return Card(metric, value, arms, "untested", ["the baseline itself", "too few pictures for a test"])
        worse = sum(one.verdict == "worse" for one in rest.values())
        verdict = "better" if worse == len(rest) else "unclear"
        return Card(metric, value, arms, verdict, ["the baseline itself", f"{worse} of {len(rest)} other arms significantly worse"])
    difference = rest.get(arms[0].label)
    if difference is None:
        return Card(metric, value, arms, "untested", ["not tested"])
    heading = {
        "better": f"better than {baseline.label}",
        "worse": f"worse than {baseline.label}",
        "unclear": f"no clear difference from {baseline.label}",
        "untested": f"against {baseline.label}, too few pictures for a test",
    }.get(difference.verdict, f"differs from {baseline.label}")
    return Card(metric, value, arms, difference.verdict, [heading, show_difference(metric, difference)])


def _measured(row: Row, metric: Metric | None) -> str:
    return "-" if metric is None else show_interval(metric, row.intervals.get(metric.key))


def _cost(key: str, value: Any) -> str:
    return f"{number:.2f}" if key == "peak_memory_gib" and (number := as_number(value)) is not None else show_figure(key, value)


def _short_commit(value: Any) -> str:
    return ", ".join(text[:_SHORT_COMMIT] + ("+" if "dirty" in text else "") for text in str(value).split(", ")) if value else "-"
