"""Two figures against each other as an inline SVG: the perception-distortion plane (Blau and Michaeli, CVPR 2018), quality against cost."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from osediff_exp.reporting.curves import Axis, axis, colour_class, log_ticks, short, ticks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from osediff_exp.reporting.figures import Metric
    from osediff_exp.reporting.statistics import Interval

_WIDTH, _HEIGHT = 560, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 24, 24, 50
_LINE = 15  # pixels between two labels
_CHARACTER = 7.2  # pixels that a character of a label is wide, about
_RISES = (2, -16, 17, -31, 32, -46, 47, -61, 62, -76, 77)  # how far above its dot a name may stand, best first


@dataclass(frozen=True)
class Point:
    """An arm in the plane.

    Attributes:
        label: its name.
        place: among the rows; chooses the colour.
        x, y: its figures with their intervals.
        seeds: (x, y) of every seed.
        name: what is written beside the dot; None: the label.
        line: points of one line are joined in their order; None: it stands alone.
    """

    label: str
    place: int
    x: Interval
    y: Interval
    seeds: list[tuple[float, float]]
    name: str | None = None
    line: str | None = None

    @property
    def text(self) -> str:
        """What is written beside the dot."""
        return self.label if self.name is None else self.name


@dataclass(frozen=True)
class Level:
    """A reference that has a y alone, such as bicubic, which costs nothing."""

    label: str
    y: float


def plane(x_metric: Metric, y_metric: Metric, points: Sequence[Point], *, log: bool = False, levels: Sequence[Level] = ()) -> str:
    """Return the SVG: a dot with its intervals per arm, small dots for its seeds, names beside them; "" without points.

    ``log``: the x axis counts in decades. ``levels`` are drawn across; one that would squeeze the arms is named at the edge instead.
    """
    if not points:
        return ""
    # Means and seeds set the scale, not the intervals: that of two seeds is 13 times as long as their distance.
    x = axis([v for p in points for v in (p.x.mean, *(seed[0] for seed in p.seeds))], _LEFT, _WIDTH - _RIGHT, margin=0.16, log=log)
    heights = [v for p in points for v in (p.y.mean, *(seed[1] for seed in p.seeds))]
    drawn = [level.y for level in levels if _fits(level, heights)]
    y = axis([*heights, *drawn], _HEIGHT - _BOTTOM, _TOP, margin=0.16)
    taken = [_Box(x(a) - 7, y(b) - 7, x(a) + 7, y(b) + 7) for p in points for a, b in [(p.x.mean, p.y.mean), *p.seeds]]
    across = "".join(_level(level, y, taken) for level in levels)
    bars, dots = "".join(_bars(p, x, y) for p in points), "".join(_dots(p, x, y) for p in points)
    body = _frame(x, y, x_metric, y_metric) + across + _lines(points, x, y) + bars + dots + "".join(_names(points, x, y, taken))
    name = escape(f"{y_metric.title} against {x_metric.title}, one dot per arm")
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}">{body}</svg>'


def _fits(level: Level, heights: Sequence[float]) -> bool:
    """Whether the arms keep a quarter of the axis when it reaches to the level."""
    low, high = min(heights), max(heights)
    return high == low or max(high, level.y) - min(low, level.y) <= 4 * (high - low)


def _level(level: Level, y: Axis, taken: list[_Box]) -> str:
    """Draw a level and write its name over or under an end of it where it covers least, and add what that takes to ``taken``."""
    inside = y.low <= level.y <= y.high
    text = f"{level.label} {level.y:.4g}" + ("" if inside else ", above" if level.y > y.high else ", below")
    at, width = y(min(max(level.y, y.low), y.high)), _CHARACTER * len(text)
    tops = [top for top in (at - _LINE - 1, at + 1) if _TOP <= top <= _HEIGHT - _BOTTOM - _LINE]
    places = [_Box(left, top, left + width, top + _LINE) for top in tops for left in (_LEFT + 6, _WIDTH - _RIGHT - width)]
    box = min(places, key=lambda box: sum(box.overlap(other) for other in taken))
    taken += [box, *([_Box(_LEFT, at - 1, _WIDTH - _RIGHT, at + 1)] if inside else [])]
    line = f'<line class="level" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>' if inside else ""
    return f'{line}<text class="level" x="{box.left:.1f}" y="{box.bottom - 4:.1f}">{escape(text)}</text>'


def _lines(points: Sequence[Point], x: Axis, y: Axis) -> str:
    drawn = []
    for line in dict.fromkeys(p.line for p in points if p.line is not None):
        members = [p for p in points if p.line == line]
        corners = " ".join(f"{x(p.x.mean):.1f},{y(p.y.mean):.1f}" for p in members)
        drawn.append(f'<polyline class="{colour_class(members[0].place)}" points="{corners}"/>' if len(members) > 1 else "")
    return "".join(drawn)


def _frame(x: Axis, y: Axis, x_metric: Metric, y_metric: Metric) -> str:
    parts = []
    for value in ticks(y.low, y.high):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 3.5:.1f}" text-anchor="end">{short(value)}</text>')
    for value in (log_ticks if x.log else ticks)(x.low, x.high):
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


def _bars(p: Point, x: Axis, y: Axis) -> str:
    """Draw both intervals, cut at the frame."""
    cx, cy, parts = x(p.x.mean), y(p.y.mean), []
    if p.x.low is not None and p.x.high is not None:
        left, right = (x(min(max(end, x.low), x.high)) for end in (p.x.low, p.x.high))
        parts.append(f'<line class="bar" x1="{left:.1f}" x2="{right:.1f}" y1="{cy:.1f}" y2="{cy:.1f}"/>')
    if p.y.low is not None and p.y.high is not None:
        bottom, top = min(y(p.y.low), _HEIGHT - _BOTTOM), max(y(p.y.high), _TOP)
        parts.append(f'<line class="bar" x1="{cx:.1f}" x2="{cx:.1f}" y1="{bottom:.1f}" y2="{top:.1f}"/>')
    return _group(p, parts)


def _dots(p: Point, x: Axis, y: Axis) -> str:
    parts = [f"<title>{escape(p.label)}: {p.x.mean:.4g}, {p.y.mean:.4g}</title>"]
    for a, b in p.seeds if len(p.seeds) > 1 else []:
        parts.append(f'<line class="spoke" x1="{x(p.x.mean):.1f}" y1="{y(p.y.mean):.1f}" x2="{x(a):.1f}" y2="{y(b):.1f}"/>')
        parts.append(f'<circle class="seed" cx="{x(a):.1f}" cy="{y(b):.1f}" r="3.5"/>')
    return _group(p, [*parts, f'<circle cx="{x(p.x.mean):.1f}" cy="{y(p.y.mean):.1f}" r="6.5"/>'])


def _names(points: Sequence[Point], x: Axis, y: Axis, taken: list[_Box]) -> list[str]:
    """Write every name near its dot where it covers nothing of ``taken`` and no other name, with a line to the dot if that is far."""
    drawn = []
    for p in sorted(points, key=lambda p: y(p.y.mean)):
        cx, cy = x(p.x.mean), y(p.y.mean)
        places = [_Box.beside(cx, cy, _CHARACTER * len(p.text), right=right, rise=rise) for rise in _RISES for right in (True, False)]
        inside = [box for box in places if box.is_inside]
        box = min(inside or places, key=lambda box: sum(box.overlap(other) for other in taken))  # the first of equals: the nearest
        taken.append(box)
        at, anchor = (box.left, "start") if box.left > cx else (box.right, "end")
        baseline = box.bottom - 4
        far = abs(baseline - cy) > 20
        parts = [f'<line class="leader" x1="{cx:.1f}" y1="{cy:.1f}" x2="{at:.1f}" y2="{baseline - 4:.1f}"/>'] if far else []
        parts.append(f'<text class="name" x="{at:.1f}" y="{baseline:.1f}" text-anchor="{anchor}">{escape(p.text)}</text>')
        drawn.append(_group(p, parts))
    return drawn


@dataclass(frozen=True)
class _Box:
    """Where a name or a dot stands, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def beside(cls, cx: float, cy: float, width: float, *, right: bool, rise: float) -> _Box:
        """Return the box of a name right or left of a dot, ``rise`` pixels above it: a bar through a name would read as struck out."""
        left = cx + 10 if right else cx - 10 - width
        return cls(left, cy - rise - _LINE, left + width, cy - rise)

    @property
    def is_inside(self) -> bool:
        """Whether the box lies on the drawing; it may stand above and right of the frame."""
        return self.left >= _LEFT and self.right <= _WIDTH and self.top >= 0 and self.bottom <= _HEIGHT - _BOTTOM

    def overlap(self, other: _Box) -> float:
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, wide) * max(0.0, high)


def _group(p: Point, parts: Sequence[str]) -> str:
    return f'<g class="{colour_class(p.place)}" data-arm="{p.place}">{"".join(parts)}</g>' if parts else ""
