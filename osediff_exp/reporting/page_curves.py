"""The plots of the page: curves by section, the score loss over timesteps, and the perception-distortion plane."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from markupsafe import Markup

from osediff_exp.reporting.curves import Series, plot
from osediff_exp.reporting.figures import Metric, as_number
from osediff_exp.reporting.plane import Point, plane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from osediff_exp.reporting.arms import Row
    from osediff_exp.reporting.comparison import Comparison
    from osediff_exp.reporting.runs import Curve

_LOSSES = {"loss", "total", "mse", "l1", "l2", "ssim", "lpips", "st_lpips", "edge_st_lpips", "dists", "gan", "vsd", "csd", "sds", "tsd"}
_DIAGNOSTICS = ("vsd", "score", "prior", "critic")
_SECTIONS = ("Validation", "Training losses", "VSD diagnostics", "Training")
_BUCKET = re.compile(r"(.*)score_loss_t(\d+)_(\d+)$")
_LAST = 0.25  # the share of the training whose mean a bucket shows
_MEANINGS = {
    "vsd/gap": "mean distance of the latent from the prior's guess",
    "vsd/w": "VSD weight w = 1 / gap",
    "train/vsd_critic": "loss of the score network",
}
_DISTORTION = ("psnr", "lpips", "st_lpips", "dists", "ssim")
_PERCEPTION = ("niqe", "musiq", "maniqa", "clipiqa")


@dataclass(frozen=True)
class Plot:
    """An SVG with its heading, a sentence where the heading says too little, and the key that the figure is logged under."""

    title: str
    svg: Markup
    meaning: str = ""
    key: str = ""


def curve_sections(comparison: Comparison) -> list[tuple[str, list[Plot]]]:
    """Return (section, plots) for every logged figure, sections in their fixed order; each seed is a line in its arm's colour."""
    rows = list(enumerate(comparison.rows))
    sections: dict[str, list[Plot]] = {name: [] for name in _SECTIONS}
    keys = dict.fromkeys(key for _, row in rows for run in row.runs for key in run.curves)
    keys = dict.fromkeys(sorted(keys, key=_bucket_start))
    for key in (key for key in keys if not key.startswith("val/bicubic_")):  # constants: the table has them
        series = [Series(_name(row, run.seed), place, run.curves[key]) for place, row in rows for run in row.runs if key in run.curves]
        svg = plot(key, series)
        if svg:
            sections[_section(key)].append(Plot(_title(key, comparison.metrics), Markup(svg), _meaning(key), key))
    sections["VSD diagnostics"] += _score_loss_by_timestep(comparison)
    return [(name, plots) for name, plots in sections.items() if plots]


def planes(comparison: Comparison) -> list[Plot]:
    """Return perception against distortion: the best-known perceptual figure at hand against up to two distances to the original."""
    known = {metric.key: metric for metric in comparison.metrics}
    perception = next((known[key] for key in _PERCEPTION if key in known), None)
    distortions = [known[key] for key in _DISTORTION if key in known][:2]
    plots = []
    for distortion in distortions if perception else []:
        assert perception is not None
        points = [point for place, row in enumerate(comparison.rows) if row.runs and (point := _point(row, place, distortion, perception))]
        svg = plane(distortion, perception, points)
        if svg:
            title = f"{perception.title} against {distortion.title}"
            plots.append(Plot(title, Markup(svg), _where_bicubic_lies(comparison, distortion, perception)))
    return plots


def _point(row: Row, place: int, x: Metric, y: Metric) -> Point | None:
    if x.key not in row.intervals or y.key not in row.intervals:
        return None
    pairs = [(as_number(run.result.get(x.key)), as_number(run.result.get(y.key))) for run in row.done]
    seeds = [(a, b) for a, b in pairs if a is not None and b is not None]
    return Point(row.label, place, row.intervals[x.key], row.intervals[y.key], seeds)


def _where_bicubic_lies(comparison: Comparison, x: Metric, y: Metric) -> str:
    texts = [
        f"{row.label}: {x.title} {x.show(row.figures[x.key])}, {y.title} {y.show(row.figures[y.key])}"
        for row in comparison.references
        if x.key in row.figures and y.key in row.figures
    ]
    return f"Not drawn, to keep the scale readable: {'; '.join(texts)}." if texts else ""


def _name(row: Row, seed: object) -> str:
    return f"{row.label}, seed {seed}" if len(row.runs) > 1 else row.label


def _section(key: str) -> str:
    last = key.split("/", 1)[-1]  # train/lr/vsd is no loss
    if key.startswith("val"):
        return "Validation"
    if key.startswith("vsd/"):
        return "VSD diagnostics"
    if last in _LOSSES or ("loss" in last and "/" not in last):
        return "Training losses"
    return "VSD diagnostics" if any(word in key for word in _DIAGNOSTICS) and not last.startswith("lr/") else "Training"


def _title(key: str, metrics: Sequence[Metric]) -> str:
    """Head a validation curve with its metric's name and direction, any other with its key."""
    metric = next((metric for metric in metrics if key == f"val/{metric.key}"), None)
    return f"{metric.title} {metric.arrow}".strip() if metric else key


def _bucket_start(key: str) -> int:
    """Order the buckets of the score loss by timestep; other figures stay before them, as they were logged."""
    bucket = _BUCKET.match(key)
    return int(bucket[2]) if bucket else -1


def _meaning(key: str) -> str:
    bucket = _BUCKET.match(key)
    if bucket:
        return f"score network's loss at timesteps {int(bucket[2])} to {int(bucket[3])}"
    return _MEANINGS.get(key, "")


def _score_loss_by_timestep(comparison: Comparison) -> list[Plot]:
    series = []
    for place, row in enumerate(comparison.rows):
        for run in row.runs:
            found = [(match, curve) for key, curve in run.curves.items() if (match := _BUCKET.match(key))]
            points = [((int(match[2]) + int(match[3])) / 2, _last_mean(curve)) for match, curve in found]
            if len(points) > 1:
                series.append(Series(_name(row, run.seed), place, sorted(points)))
    svg = plot("score loss", series, across="timestep") if series else ""
    meaning = "where the score network still errs: mean of the last quarter of the training, by bucket of timesteps"
    return [Plot("score loss by timestep", Markup(svg), meaning)] if svg else []


def _last_mean(curve: Curve) -> float:
    end = curve[-1][0]
    values = [value for step, value in curve if step >= (1 - _LAST) * end and math.isfinite(value)]
    return fmean(values) if values else math.nan
