"""Quality against seconds per picture: what each arm costs to restore with, and what it gives for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from osediff_exp.reporting.figures import Metric, as_number
from osediff_exp.reporting.page_curves import Plot
from osediff_exp.reporting.plane import Level, Point, plane
from osediff_exp.reporting.published import published_complexity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from osediff_exp.reporting.arms import Row
    from osediff_exp.reporting.comparison import Comparison

# Of a training's validation, and of task=evaluate: medians over the pictures, prompts included.
_SECONDS = ("restore_seconds_per_image", "restore_seconds")
_AXIS = Metric("seconds", "seconds per picture", "lower", 3, "")
_STEP_KEYS = ("restorer.steps", "trainer.val_steps", "generator.steps")
_FIRST = ("st_lpips", "lpips", "dists", "niqe", "musiq", "maniqa", "clipiqa")  # perceptual ones go first
_LEAST_SPREAD = 1.5  # arms that cost the same, but for the clock's noise, need no plane

ABOUT = (
    "Seconds are those of the pictures that the quality was measured on, on the machine below: their median, prompts included. "
    "A line joins one arm in several numbers of sampling steps, which stand beside its dots; arms further left cost less."
)
_Group = list[tuple[int, "Row"]]


def cost_planes(comparison: Comparison) -> list[Plot]:
    """Return a plane for each quality figure that has a direction, the perceptual ones first; none where all arms cost the same."""
    rows = [(place, row) for place, row in enumerate(comparison.rows) if row.runs and _key(row)]
    seconds = [row.intervals[key].mean for _, row in rows if (key := _key(row))]
    groups = _groups(rows)
    if not seconds or (len(groups) == len(rows) and max(seconds) < _LEAST_SPREAD * min(seconds)):
        return []
    plots = [
        (metric, plane(_AXIS, metric, _points(groups, metric), log=True, levels=_levels(comparison, metric)))
        for metric in _chosen(comparison)
    ]
    return [Plot(metric.title, Markup(svg), key=metric.key) for metric, svg in plots if svg]


def _chosen(comparison: Comparison) -> list[Metric]:
    known = [metric for metric in comparison.metrics if metric.better != "unknown"]
    return sorted(known, key=lambda metric: _FIRST.index(metric.key) if metric.key in _FIRST else len(_FIRST))


def _key(row: Row) -> str:
    """Return the figure that has the row's seconds, "" where there is none above 0."""
    return next((key for key in _SECONDS if key in row.intervals and row.intervals[key].mean > 0), "")


def _groups(rows: Sequence[tuple[int, Row]]) -> list[_Group]:
    """Return the rows that differ in nothing but their sampling steps, fewest first; any other row is a group of its own."""
    found: dict[tuple[object, ...], _Group] = {}
    for place, row in rows:
        rest = tuple((key, value) for key, value in sorted(row.settings.items()) if key not in _STEP_KEYS)
        found.setdefault((_network(row), row.figures.get("color_fix"), *rest), []).append((place, row))
    groups: list[_Group] = []
    for group in found.values():
        steps = [as_number(row.figures.get("sampling_steps")) for _, row in group]
        known = [number for number in steps if number is not None]
        if len(set(known)) == len(group):
            groups.append([one for _, one in sorted(zip(known, group, strict=True), key=lambda pair: pair[0])])
        else:
            groups += [[one] for one in group]
    return groups


def _network(row: Row) -> str:
    """Return what tells the restorers of one evaluation apart, whose settings are the same: the training, else the label."""
    return str(row.figures.get("training") or (row.run.restorer if row.run else ""))


def _points(groups: Sequence[_Group], metric: Metric) -> list[Point]:
    points, names = [], _names(groups)
    has_lines = any(len(group) > 1 for group in groups)
    for number, group in enumerate(groups):
        members = [(place, row) for place, row in group if metric.key in row.intervals]
        line = str(number) if len(members) > 1 else None
        for place, row in members:
            is_last = row is members[-1][1]
            steps = f"{as_number(row.figures.get('sampling_steps')) or 0:.0f}"
            text = names[number] if line is None else ", ".join(filter(None, [names[number], f"{steps} steps"])) if is_last else steps
            # Where there are lines, colours tell them apart; else they are the arms', as in the rest of the page.
            points.append(_point(row, number if has_lines else place, metric, name=text, line=line))
    return points


def _point(row: Row, place: int, metric: Metric, *, name: str, line: str | None) -> Point:
    key = _key(row)
    pairs = [(as_number(run.result.get(key)), as_number(run.result.get(metric.key))) for run in row.done]
    seeds = [(a, b) for a, b in pairs if a is not None and a > 0 and b is not None]
    return Point(row.label, place, row.intervals[key], row.intervals[metric.key], seeds, name, line)


def _names(groups: Sequence[_Group]) -> list[str]:
    """Name each group: by its method where arms differ in their steps and that tells them apart, else by what its labels share."""
    methods = [_method(group) for group in groups]
    by_method = any(len(group) > 1 for group in groups) and all(methods) and len(set(methods)) == len(groups)
    return methods if by_method else [_shared(group) for group in groups]


def _method(group: _Group) -> str:
    """Return the method's name, as the paper writes it where it is one of the paper's."""
    name = str(group[0][1].figures.get("method") or "")
    return next((row.method for row in published_complexity() if row.method.lower() == name), name)


def _shared(group: _Group) -> str:
    labels = [row.label.split(", ") for _, row in group]
    return ", ".join(part for part in labels[0] if all(part in label for label in labels))


def _levels(comparison: Comparison, metric: Metric) -> list[Level]:
    values = [(row.label, as_number(row.figures.get(metric.key))) for row in comparison.references]
    return [Level(label, value) for label, value in values if value is not None]
