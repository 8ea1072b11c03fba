"""The table of ratios: what was measured, the limit set for it, and whether it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from rich.table import Table


class Limit(NamedTuple):
    """A figure's limit: the figure must be at least or at most ``value``.

    Attributes:
        what: in words.
        plain, ours: keys of the two figures beside each other; "" where there is no such figure.
    """

    key: str
    side: Literal["at least", "at most"]
    value: float
    what: str
    plain: str = ""
    ours: str = ""


def _restoring(way: str, what: str) -> Limit:
    sides = (f"restore_{way}_plain_compute_seconds", f"restore_{way}_compute_seconds")
    return Limit(f"restore_{way}_speedup", "at least", 2.5, what, *sides)


LIMITS = (
    Limit("train_step_speedup", "at least", 2.0, "training step, s", "train_step_plain_compute_seconds", "train_step_compute_seconds"),
    Limit("train_step_memory_ratio", "at most", 0.6, "training step, GiB", "train_step_plain_gib", "train_step_ours_gib"),
    Limit("restore_speedup", "at least", 2.5, "restoring 512 px, s", "restore_plain_compute_seconds", "restore_compute_seconds"),
    _restoring("light", "with decoder=light, s"),
    _restoring("bf16", "with dtype=bfloat16, s"),
    _restoring("bf16_light", "with both, s"),
    Limit("scoring_speedup", "at least", 2.0, "scoring SSIM-Y 512 px, s", "scoring_plain_compute_seconds", "scoring_compute_seconds"),
    Limit("data_speedup", "at least", 1.0, "a training sample, ms", "data_core_ms_per_sample", "data_cached_core_ms_per_sample"),
    Limit("data_disk_speedup", "at least", 1.0, "kept on disk, ms", "data_core_ms_per_sample", "data_disk_core_ms_per_sample"),
    Limit("degradation_median_ms", "at most", 60.0, "degradation 512 px, ms", "", "degradation_median_ms"),
    Limit("startup_speedup", "at least", 2.0, "--help, s", "startup_libraries_seconds", "startup_help_seconds"),
    Limit("startup_help_seconds", "at most", 2.0, "--help, s", "", "startup_help_seconds"),
    Limit("startup_error_seconds", "at most", 2.0, "a wrong value, s", "", "startup_error_seconds"),
)


def kept(limit: Limit, figures: Mapping[str, Any]) -> bool | None:
    """Tell whether a limit is kept; None where the figure was not measured."""
    value = figures.get(limit.key)
    if not isinstance(value, int | float):
        return None
    return value >= limit.value if limit.side == "at least" else value <= limit.value


def ratio_table(figures: Mapping[str, Any]) -> Table:
    """Return the measured limits as a table: plain, ours, the figure that is limited, the limit, and whether it is kept."""
    table = Table("", "plain", "ours", "figure", "limit", "", box=None, title="beside the plain way", title_justify="left")
    for limit in LIMITS:
        verdict = kept(limit, figures)
        if verdict is not None:
            sides = [f"{figures[key]:.3g}" if isinstance(figures.get(key), float) else "" for key in (limit.plain, limit.ours)]
            table.add_row(limit.what, *sides, f"{figures[limit.key]:.3g}", f"{limit.side} {limit.value:g}", "kept" if verdict else "missed")
    return table
