"""The comparison as CSV, one line per row of the table, numbers in full precision."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from osediff_exp.reporting.labels import ABSENT

if TYPE_CHECKING:
    from osediff_exp.reporting.comparison import Comparison, Row

_TAKEN = ("arm", "status", "seeds", "error", "folder")


def render_csv(comparison: Comparison) -> str:
    """Return arm, status, differing config keys, every figure (mean over seeds), intervals, differences, seeds, error, folders.

    ``KEY_scored`` counts the pictures behind a mean (the fewest of its seeds), where arms differ in them, ``KEY_seeds`` its seeds where one
    of them has no figure.
    ``KEY_low`` and ``KEY_high`` bound the 95 % interval over seeds (only where an arm has several). ``KEY_difference`` is arm minus
    baseline over ``KEY_images`` pictures, with its interval over ``KEY_photos`` photos, ``KEY_p`` and ``KEY_p_adjusted``; ``KEY_verdict``
    is what the test says, ``KEY_support`` what it rests on, ``KEY_detectable`` the smallest difference that it finds with 80 % power;
    ``KEY_seeds_low``, ``KEY_seeds_high`` and ``KEY_seeds_detectable`` are the same over seeds.
    """
    rows = comparison.rows
    figures = list(dict.fromkeys(key for row in rows for key in row.figures))
    # A figure and a config key may share a name (steps): the config's then says where it comes from.
    settings = {key: f"config.{key}" if key in {*figures, *_TAKEN} else key for key in comparison.config_differences}
    results = {key: f"result.{key}" if key in _TAKEN else key for key in figures}
    lines = []
    for row in rows:
        cells: dict[str, Any] = {"arm": row.label, "status": row.status}
        cells |= {settings[key]: value for key, value in row.settings.items() if value != ABSENT}  # empty: a column of numbers stays one
        cells |= {results[key]: value for key, value in row.figures.items()}
        lines.append(cells | _statistics(comparison, row) | _origin(row))
    added = [key for metric in comparison.metrics for key in _columns(metric.key) if any(key in line for line in lines)]
    columns = ["arm", "status", *settings.values(), *results.values(), *added, "seeds", "error", "folder"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _columns(key: str) -> list[str]:
    own = ["scored", "seeds", "low", "high", "difference", "difference_low", "difference_high", "images", "photos"]
    test = ["p", "p_adjusted", "verdict", "support", "detectable"]
    return [f"{key}_{end}" for end in [*own, *test, "seeds_low", "seeds_high", "seeds_detectable"]]


def _statistics(comparison: Comparison, row: Row) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for key in (metric.key for metric in comparison.metrics):
        interval, difference = row.intervals.get(key), comparison.differences.get((row.label, key))
        behind = comparison.behind.get((row.label, key))
        values: list[Any] = [behind.pictures[0] if behind and behind.pictures else None, behind.seeds if behind else None]
        values += [interval.low, interval.high] if interval else [None, None]
        if difference:
            own = difference.interval
            values += [own.mean, own.low, own.high, difference.num_pictures, own.n]
            values += [difference.p, difference.p_adjusted, difference.verdict, difference.support, difference.detectable]
            seeds = difference.over_seeds
            values += [seeds.low, seeds.high, difference.detectable_over_seeds] if seeds else []
        cells |= {name: value for name, value in zip(_columns(key), values, strict=False) if value is not None}
    return cells


def _origin(row: Row) -> dict[str, Any]:
    if not row.runs:
        return {}
    errors = dict.fromkeys(run.error for run in row.runs if run.error)
    return {"seeds": len(row.done), "error": "; ".join(errors), "folder": "; ".join(run.name for run in row.runs)}
