"""The rows that papers have published, carried as data with their source (data/SOURCE.md)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCE = "arXiv 2406.08177v3"
_TEXTS = ("table", "dataset", "method", "steps")


@dataclass(frozen=True)
class PublishedRow:
    """One line of a table: method, its number of diffusion steps, its figures by metric key (psnr, ssim, ...), and as printed."""

    method: str
    steps: int
    figures: Mapping[str, float]
    printed: Mapping[str, str]


def published_rows(dataset: str) -> list[PublishedRow]:
    """Return the main comparison (Table 1) on ``dataset`` (RealSR, DrealSR, DIV2K-Val; case does not matter); none for another set."""
    rows = [row for row in read_table("paper_tables.csv") if row["dataset"].lower() == dataset.lower()]
    return [_row(row) for row in rows]


def published_sets() -> list[str]:
    """Return the test sets of the main comparison."""
    return list(dict.fromkeys(row["dataset"] for row in read_table("paper_tables.csv")))


def published_complexity() -> list[PublishedRow]:
    """Return Table 2: ``time_s_a100`` in s, ``macs_g`` in 10^9, ``params_m`` and ``trainable_m`` in 10^6, for a 512 px output."""
    return [_row(row) for row in read_table("paper_complexity.csv")]


def published_set_size(dataset: str) -> int | None:
    """Return how many pictures the published averages are taken over, or None for a set without published rows."""
    sizes = {row["dataset"].lower(): int(row["num_images"]) for row in read_table("test_sets.csv")}
    return sizes.get(dataset.lower())


@cache
def read_table(name: str) -> tuple[dict[str, str], ...]:
    """Return the lines of a CSV file of ``reporting/data``, as text by column."""
    text = (files("osediff_exp.reporting") / "data" / name).read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def _row(row: Mapping[str, str]) -> PublishedRow:
    printed = {key: value for key, value in row.items() if key not in _TEXTS and value}
    return PublishedRow(row["method"], int(row["steps"]), {key: float(value) for key, value in printed.items()}, printed)
