"""What the figures of a result mean, which way is better, and how they are written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from osediff_exp.photo_units import is_standard_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from osediff_exp.reporting.statistics import Interval

Better = Literal["higher", "lower", "unknown"]


@dataclass(frozen=True)
class Metric:
    """A quality figure: its heading, which way is better, decimals shown, and a sentence for newcomers.

    A figure ``of_set`` belongs to all pictures together: what stands beside one picture is its contribution to it, no quality of its own.
    """

    key: str
    title: str
    better: Better
    digits: int
    meaning: str
    of_set: bool = False

    @property
    def arrow(self) -> str:
        """An arrow that points where better results lie (empty where that is not known)."""
        return {"higher": "\u2191", "lower": "\u2193", "unknown": ""}[self.better]

    def show(self, value: Any) -> str:
        """Write ``value`` with the metric's decimals; "-" where there is none."""
        number = as_number(value)
        return "-" if number is None else f"{number:.{self.digits}f}"


_KNOWN = (
    Metric("psnr", "PSNR-Y", "higher", 2, "how close the brightness of every pixel is to the original, in decibels"),
    Metric("ssim", "SSIM-Y", "higher", 4, "how well local structure in the brightness matches the original; 1 is identical"),
    Metric(
        "st_lpips", "ST-LPIPS", "lower", 4, "distance to the original as a neural network sees it, tolerant of small shifts; 0 is identical"
    ),
    Metric("lpips", "LPIPS", "lower", 4, "distance to the original as a neural network sees it; 0 is identical"),
    Metric("dists", "DISTS", "lower", 4, "distance to the original in structure and texture; 0 is identical"),
    Metric("niqe", "NIQE", "lower", 3, "how unnatural the picture looks by itself, without the original"),
    Metric("niqe_set", "NIQE of the set", "lower", 3, "how unnatural all pictures together look, without the originals", of_set=True),
    Metric("kid", "KID", "lower", 4, "how far patches lie from true patches as a neural network sees them; 0: not at all", of_set=True),
    Metric("fd", "FD", "lower", 3, "the same distance measured by means and covariances (Frechet)", of_set=True),
    Metric(
        "sharpness", "Sharpness", "unknown", 3, "fine contrast relative to the original: 1 is as sharp, below is softer, noise counts too"
    ),
    Metric("fid", "FID", "lower", 2, "how far the set of outputs lies from the set of originals", of_set=True),
    Metric("musiq", "MUSIQ", "higher", 2, "quality as a network trained on people's ratings sees it, without the original"),
    Metric("maniqa", "MANIQA", "higher", 4, "quality as a network trained on people's ratings sees it, without the original"),
    Metric("clipiqa", "CLIPIQA", "higher", 4, "quality as a language-image network sees it, without the original"),
)


def show_interval(metric: Metric, interval: Interval | None) -> str:
    """Write "25.15 \u00b1 0.12", without the half width where there is one value, "-" where there is none."""
    if interval is None:
        return "-"
    half = "" if interval.half is None else f" \u00b1 {interval.half:.{metric.digits}f}"
    return metric.show(interval.mean) + half


def show_range(metric: Metric, interval: Interval) -> str:
    """Write a difference with its interval: "+0.120 [-0.010, +0.250]"; half the interval's width has two significant digits."""
    if interval.low is None or interval.high is None:
        return f"{interval.mean:+.{metric.digits + 1}f} [no interval]"
    digits = _digits(metric, interval)
    low, mean, high = (f"{value:+.{digits}f}" for value in (interval.low, interval.mean, interval.high))
    return f"{mean} [{low}, {high}]"


def _digits(metric: Metric, interval: Interval) -> int:
    """Decimals that say as much as the interval knows: at least one, at most one more than the metric's own."""
    half = interval.half or 0.0
    most = metric.digits + 1
    return most if half <= 0 else min(most, max(1, 1 - math.floor(math.log10(half))))


def show_p(p: float | None) -> str:
    """Write a p value with two significant digits; below 0.001 as "< 0.001", none as "-"."""
    if p is None:
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def metrics_of(results: Iterable[dict[str, Any]]) -> list[Metric]:
    """Return the metrics in ``results``: the known ones first, then any figure that has a ``bicubic_`` twin."""
    keys = dict.fromkeys(key for result in results for key, value in result.items() if as_number(value) is not None)
    known = {metric.key: metric for metric in _KNOWN}
    twins = [key for key in keys if key not in known and f"bicubic_{key}" in keys and not is_cost(key)]
    others = [key for key in twins if not is_standard_error(key, keys)]
    return [metric for metric in _KNOWN if metric.key in keys] + [Metric(key, key, "unknown", 4, "") for key in others]


def is_cost(key: str) -> bool:
    """Tell whether a figure is seconds: of the bicubic enlargement too an evaluation has them."""
    return key.endswith("_seconds")


def metric_named(key: str) -> Metric:
    """Return the known metric of that key, or one without a direction that goes by its key."""
    return next((metric for metric in _KNOWN if metric.key == key), Metric(key, key.upper(), "unknown", 4, ""))


def best(metric: Metric, values: Sequence[Any]) -> set[int]:
    """Return the places of the best values. Values that look the same as shown share the mark; nan and absent ones have no part."""
    shown = {place: float(metric.show(value)) for place, value in enumerate(values) if as_number(value) is not None}
    if metric.better == "unknown" or not shown:
        return set()
    target = (max if metric.better == "higher" else min)(shown.values())
    return {place for place, value in shown.items() if value == target}


def as_number(value: Any) -> float | None:
    """Return a finite number as float, anything else (text, flags, nan, infinities) as None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def show_figure(key: str, value: Any) -> str:
    """Write a figure that is no metric: thousands apart, durations readable, four significant digits."""
    number = as_number(value)
    if number is None:
        return "-" if value is None else str(value)
    if key == "seconds" or key.endswith("_seconds"):
        return _duration(number)
    if number == int(number) and abs(number) < 1e15:
        return f"{int(number):,}"
    return f"{number:.4g}" if abs(number) < 1e4 else f"{number:,.0f}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
