"""Two metrics against each other as an inline SVG: the perception-distortion plane (Blau and Michaeli, CVPR 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from osediff_exp.reporting.curves import NUM_COLOURS, Axis, axis, short, ticks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from osediff_exp.reporting.figures import Metric
    from osediff_exp.reporting.statistics import Interval

_WIDTH, _HEIGHT = 560, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 24, 24, 50
_LINE = 15  # pixels between two labels
_CHARACTER = 7.2  # pixels that a character of a label is wide, about


@dataclass(frozen=True)
class Point:
    """An arm in the plane: its name, its place among the rows (chooses the colour), both intervals, and (x, y) of every seed."""

    label: str
    place: int
    x: Interval
    y: Interval
    seeds: list[tuple[float, float]]


def plane(x_metric: Metric, y_metric: Metric, points: Sequence[Point]) -> str:
    """Return the SVG: a dot with its intervals per arm, small dots for its seeds, names beside them; "" without points."""
    if not points:
        return ""
    x = axis([v for p in points for v in _extent(p.x, [s[0] for s in p.seeds])], _LEFT, _WIDTH - _RIGHT, margin=0.12)
    y = axis([v for p in points for v in _extent(p.y, [s[1] for s in p.seeds])], _HEIGHT - _BOTTOM, _TOP, margin=0.12)
    heights = _spread([y(p.y.mean) for p in points])
    body = _frame(x, y, x_metric, y_metric) + "".join(_point(p, x, y, height) for p, height in zip(points, heights, strict=True))
    name = escape(f"{y_metric.title} against {x_metric.title}, one dot per arm")
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}">{body}</svg>'


def _extent(interval: Interval, seeds: Sequence[float]) -> list[float]:
    ends = [interval.low, interval.high]
    return [interval.mean, *seeds, *(end for end in ends if end is not None)]


def _spread(heights: Sequence[float]) -> list[float]:
    """Return the heights of the labels: as near to their dots as a line's distance between them allows, inside the frame."""
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    placed = list(heights)
    lowest = float(_TOP)
    for place in order:
        placed[place] = lowest = max(heights[place], lowest)
        lowest += _LINE
    highest = float(_HEIGHT - _BOTTOM)
    for place in reversed(order):
        placed[place] = highest = min(placed[place], highest)
        highest -= _LINE
    return placed


def _frame(x: Axis, y: Axis, x_metric: Metric, y_metric: Metric) -> str:
    parts = []
    for value in ticks(y.low, y.high):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 3.5:.1f}" text-anchor="end">{short(value)}</text>')
    for value in ticks(x.low, x.high):
        parts.append(f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text x="{x(value):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{short(value)}</text>')
    across = {"higher": "better \u2192", "lower": "\u2190 better", "unknown": ""}[x_metric.better]
    # Turned by 90 degrees anticlockwise, a text's right end points up.
    along = {"higher": "better \u2192", "lower": "\u2190 better", "unknown": ""}[y_metric.better]
    middle, centre = (_LEFT + _WIDTH - _RIGHT) / 2, (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{_HEIGHT - 10}" text-anchor="middle">{escape(x_metric.title)} ({across})</text>')
    parts.append(
        f'<text class="axis" transform="translate(14 {centre}) rotate(-90)" text-anchor="middle">{escape(y_metric.title)} ({along})</text>'
    )
    return "".join(parts)


def _point(p: Point, x: Axis, y: Axis, height: float) -> str:
    cx, cy = x(p.x.mean), y(p.y.mean)
    parts = [f"<title>{escape(p.label)}: {p.x.mean:.4g}, {p.y.mean:.4g}</title>"]
    if p.x.low is not None and p.x.high is not None:
        parts.append(f'<line class="bar" x1="{x(p.x.low):.1f}" x2="{x(p.x.high):.1f}" y1="{cy:.1f}" y2="{cy:.1f}"/>')
    if p.y.low is not None and p.y.high is not None:
        parts.append(f'<line class="bar" x1="{cx:.1f}" x2="{cx:.1f}" y1="{y(p.y.low):.1f}" y2="{y(p.y.high):.1f}"/>')
    parts += [f'<circle class="seed" cx="{x(a):.1f}" cy="{y(b):.1f}" r="3"/>' for a, b in p.seeds if len(p.seeds) > 1]
    parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="6"/>')
    right = cx + 9 + _CHARACTER * len(p.label) < _WIDTH
    at, anchor = (cx + 9, "start") if right else (cx - 9, "end")
    if abs(height - cy) > 3:
        parts.append(f'<line class="leader" x1="{cx:.1f}" y1="{cy:.1f}" x2="{at:.1f}" y2="{height - 8:.1f}"/>')
    # A little above the dot: a bar through the name would read as struck out.
    parts.append(f'<text class="name" x="{at:.1f}" y="{height - 7:.1f}" text-anchor="{anchor}">{escape(p.label)}</text>')
    return f'<g class="s{p.place % NUM_COLOURS}" data-arm="{p.place}">{"".join(parts)}</g>'
