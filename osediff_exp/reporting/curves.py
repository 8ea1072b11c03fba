"""Curves over steps as small inline SVG plots; colours come from the page's style (classes s0, s1, ...)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from osediff_exp.reporting.runs import Curve

NUM_COLOURS = 8
_WIDTH, _HEIGHT = 420, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 30
_MIN_POINTS, _MAX_POINTS, _POINTS_OF_A_PLOT = 20, 120, 3000


@dataclass(frozen=True)
class Series:
    """One arm's curve: its name, its place among the arms (chooses the colour), and its points."""

    label: str
    place: int
    points: Curve


@dataclass(frozen=True)
class Bucket:
    """Neighbouring points summed up: mean step, mean value, lowest and highest value."""

    step: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Axis:
    """Maps values to pixels; ``log`` means decades instead of differences."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of ``value``."""
        low, high, value = (math.log10(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return self.start + (self.end - self.start) * (value - low) / (high - low)


def colour_class(place: int) -> str:
    """Return the style of the arm at ``place``: one of eight colours; the next eight arms have them again, dashed and as rings."""
    return f"s{place % NUM_COLOURS}{' again' if place // NUM_COLOURS % 2 else ''}"


def buckets(points: Curve, max_points: int = _MAX_POINTS) -> list[Bucket]:
    """Sum ``points`` up into at most ``max_points`` buckets of equal count; points that are not finite are left out."""
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    size = max(1, math.ceil(len(finite) / max_points))
    groups = [finite[start : start + size] for start in range(0, len(finite), size)]
    return [
        Bucket(
            sum(s for s, _ in group) / len(group), sum(v for _, v in group) / len(group), min(v for _, v in group), max(v for _, v in group)
        )
        for group in groups
    ]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about ``count`` round numbers (1, 2 or 5 times a power of ten apart) within [low, high]."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten within [low, high], above 0: the powers alone where that is too many, and where it is too
    few those of :func:`ticks`.
    """
    powers = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    factors = (1, 2, 5) if high / low < 1000 else (1,)
    found = [value for power in powers for value in (factor * power for factor in factors) if low <= value <= high]
    return found if len(found) > 2 else ticks(low, high)


def plot(title: str, series: Sequence[Series], across: str = "step") -> str:
    """Return one SVG with all arms' curves of one figure, or "" where no arm has a finite point.

    Long curves are shown as bucket means inside the band of their lowest and highest values. Positive figures that span more than two
    decades get a logarithmic axis. ``across`` names the horizontal axis.
    """
    most = max(_MIN_POINTS, min(_MAX_POINTS, _POINTS_OF_A_PLOT // max(1, len(series))))  # hundreds of runs would make a page of tens of MB
    drawn = [(one, buckets(one.points, most)) for one in series]
    drawn = [(one, points) for one, points in drawn if points]
    if not drawn:
        return ""
    x = axis([step for one, _ in drawn for step, value in one.points if math.isfinite(value)], _LEFT, _WIDTH - _RIGHT)
    values = [value for _, points in drawn for bucket in points for value in (bucket.low, bucket.high)]
    y = axis(values, _HEIGHT - _BOTTOM, _TOP, margin=0.06, log=min(values) > 0 and max(values) / min(values) > 100)
    body = _frame(x, y, across) + "".join(_curve(one, points, x, y) for one, points in drawn)
    name = escape(f"{title} over {across}s" + (", logarithmic axis" if y.log else ""))
    scales = f'data-x="{_scale(x)}" data-y="{_scale(y)}" data-across="{escape(across)}"'  # for the page's readout under the pointer
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}" {scales}>{body}</svg>'


def axis(values: Sequence[float], start: float, end: float, margin: float = 0.0, log: bool = False) -> Axis:
    """Return the axis that fits ``values`` between two pixels, widened by ``margin`` of their range; a constant gets room around it."""
    low, high = min(values), max(values)
    if log:
        return Axis(low / 1.2, high * 1.2, start, end, log=True)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        pad = abs(high) * 0.1 or 1.0
        return Axis(low - pad, high + pad, start, end)
    return Axis(low - margin * (high - low), high + margin * (high - low), start, end)


def _scale(axis: Axis) -> str:
    return f"{axis.low:.8g} {axis.high:.8g} {axis.start} {axis.end}" + (" log" if axis.log else "")


def _y_ticks(y: Axis) -> list[float]:
    if not y.log:
        return ticks(y.low, y.high)
    decades = range(math.ceil(math.log10(y.low)), math.floor(math.log10(y.high)) + 1)
    every = max(1, math.ceil(len(decades) / 6))
    return [10.0**decade for decade in decades if decade % every == 0]


def _frame(x: Axis, y: Axis, across: str) -> str:
    parts = []
    for value in _y_ticks(y):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 3.5:.1f}" text-anchor="end">{short(value)}</text>')
    for value in (tick for tick in ticks(x.low, x.high, 4) if tick == int(tick)):
        parts.append(f'<text x="{x(value):.1f}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="middle">{short(value)}</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 2}" text-anchor="end">{escape(across)}</text>')
    return "".join(parts)


def _curve(series: Series, points: list[Bucket], x: Axis, y: Axis) -> str:
    line = " ".join(f"{x(b.step):.1f},{y(b.mean):.1f}" for b in points)
    shapes = [f"<title>{escape(series.label)}: last {points[-1].mean:.4g}</title>"]
    if any(bucket.high > bucket.low for bucket in points):
        upper = [f"{x(b.step):.1f},{y(b.high):.1f}" for b in points]
        lower = [f"{x(b.step):.1f},{y(b.low):.1f}" for b in reversed(points)]
        shapes.append(f'<polygon points="{" ".join(upper + lower)}"/>')
    shapes.append(f'<polyline points="{line}"/>')
    if len(points) <= 20:
        shapes += [f'<circle cx="{x(b.step):.1f}" cy="{y(b.mean):.1f}" r="3"><title>{_tip(series, b)}</title></circle>' for b in points]
    data = f'data-arm="{series.place}" data-name="{escape(series.label)}"'
    return f'<g class="{colour_class(series.place)}" {data}>{"".join(shapes)}</g>'


def _tip(series: Series, bucket: Bucket) -> str:
    return f"{escape(series.label)}, at {short(bucket.step)}: {bucket.mean:.4g}"


def short(value: float) -> str:
    """Write a tick in at most three digits: 250, 12k, 4.6e-5."""
    if value and (abs(value) >= 1e6 or abs(value) < 1e-3):
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{value:g}"
