"""Reading the tables that a run leaves: ``metrics.csv`` and ``per_image.csv``."""

from __future__ import annotations

import csv
import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

Curve = list[tuple[float, float]]

_NAMES = ("name", "restorer")

# Figures of older run folders, under the names that they have today.
_OLD_KEY = re.compile(r"\b(bicubic_)?(psnr|ssim)_y$")


def current(key: str) -> str:
    """Return the name that a figure has today."""
    return _OLD_KEY.sub(lambda match: (match[1] or "") + match[2], key)


def _lines(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            return list(csv.reader(file))
    except (OSError, csv.Error):
        return []


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            return list(csv.DictReader(file, restval=""))
    except (OSError, csv.Error):
        return []


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def read_curves(path: Path) -> dict[str, Curve]:
    """Return column -> (step, value) in order of step of a ``metrics.csv``; empty and damaged cells are left out."""
    # Column by column: a long training has hundreds of thousands of cells, and a report is written after every run of a sweep.
    lines = _lines(path)
    header = lines[0] if lines else []
    if "step" not in header:
        return {}
    at = header.index("step")
    rows = [(step, line) for line in lines[1:] if len(line) > at and (step := _number(line[at])) is not None and math.isfinite(step)]
    rows.sort(key=lambda row: row[0])
    curves = {}
    for place, key in enumerate(header):
        points = [(step, value) for step, line in rows if place < len(line) and (value := _number(line[place])) is not None]
        if points and key not in ("step", "epoch"):
            curves[current(key)] = points
    return curves


def read_per_image(path: Path, restorer: str = "") -> dict[str, dict[str, float]]:
    """Return picture -> figure -> value of a ``per_image.csv``.

    An evaluation's has a row per picture and restorer: those of ``restorer``, which the run's own figures belong to, count, and bicubic's
    as ``bicubic_FIGURE``, as a training writes them.
    """
    table: dict[str, dict[str, float]] = {}
    for row in _rows(path):
        label = row.get("restorer", restorer)
        if label not in (restorer, "bicubic"):
            continue
        prefix = "" if label == restorer else "bicubic_"
        values = {prefix + current(key): _number(text) for key, text in row.items() if isinstance(key, str) and key not in _NAMES}
        table.setdefault(str(row.get("name", "")), {}).update({key: value for key, value in values.items() if value is not None})
    return table
