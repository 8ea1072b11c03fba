"""Comparing the arms of a sweep: ``comparison.csv``, ``comparison.md``, ``comparison_grid.png`` and ``report.html``."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from osediff_exp.reporting.commands import sweep_command
from osediff_exp.reporting.figures import Metric, as_number, best, metrics_of
from osediff_exp.reporting.files import write_atomically
from osediff_exp.reporting.labels import arm_labels, differing_config, differing_overrides, unused_names
from osediff_exp.reporting.runs import Run, read_sweep

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_BICUBIC = "bicubic_"


@dataclass(frozen=True)
class ReportSettings:
    """What people say about a comparison: its title, the question it answers, and names for its arms (override -> name)."""

    title: str = ""
    question: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, node: Any) -> ReportSettings:
        """Read the ``report`` part of a config (plain dicts); what is absent or null stays empty."""
        node = node if isinstance(node, dict) else {}
        labels = node.get("labels")
        named = {str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {}
        return cls(title=str(node.get("title") or ""), question=str(node.get("question") or ""), labels=named)

    def or_else(self, other: ReportSettings) -> ReportSettings:
        """Return these settings with what is empty taken from ``other``."""
        return ReportSettings(self.title or other.title, self.question or other.question, self.labels or other.labels)


@dataclass(frozen=True)
class Row:
    """A row of the table: an arm, or (``run`` is None) the bicubic reference. ``status`` of a reference is "reference"."""

    label: str
    status: str
    figures: dict[str, Any]
    settings: dict[str, str]
    run: Run | None = None


@dataclass(frozen=True)
class Comparison:
    """A sweep's arms side by side, and the files that show them.

    Attributes:
        sweep_dir: the sweep folder.
        title, question: as given by the report settings, or made from the sweep.
        rows: the arms in order of launch, then the bicubic reference (one per distinct set of inputs).
        metrics: the quality figures that any arm has.
        best: metric key -> places in ``rows`` of the best arms; the reference takes no part.
        config_differences: config key -> value per arm.
        command: the command of the sweep ("" where unknown).
        notes: lines about what is odd in the settings.
    """

    sweep_dir: Path
    title: str
    question: str
    rows: list[Row]
    metrics: list[Metric]
    best: dict[str, set[int]]
    config_differences: dict[str, list[str]]
    command: str
    notes: list[str]

    @property
    def arms(self) -> list[Row]:
        """The rows that are arms."""
        return [row for row in self.rows if row.run is not None]

    @property
    def references(self) -> list[Row]:
        """The rows that are bicubic references."""
        return [row for row in self.rows if row.run is None]

    @property
    def csv(self) -> Path:
        """The table for programs."""
        return self.sweep_dir / "comparison.csv"

    @property
    def markdown(self) -> Path:
        """The table for README files and issues."""
        return self.sweep_dir / "comparison.md"

    @property
    def page(self) -> Path:
        """The page for people."""
        return self.sweep_dir / "report.html"

    @property
    def grid(self) -> Path:
        """The validation pictures side by side; written only where there are any."""
        return self.sweep_dir / "comparison_grid.png"


def compare(sweep_dir: Path, settings: ReportSettings | None = None) -> Comparison:
    """Read the runs of a sweep and set them side by side, without writing anything.

    What ``settings`` leaves empty is taken from the ``report`` part of the runs' own configs.
    """
    runs = read_sweep(sweep_dir)
    settings = (settings or ReportSettings()).or_else(_settings_of(runs))
    labels = arm_labels(runs, settings.labels)
    differences = differing_config(runs)
    arms = [
        Row(label, run.status, _without_bicubic(run.result), {key: values[place] for key, values in differences.items()}, run)
        for place, (label, run) in enumerate(zip(labels, runs, strict=True))
    ]
    metrics = metrics_of(run.result for run in runs)
    return Comparison(
        sweep_dir=sweep_dir,
        title=settings.title or f"Comparison of {len(runs)} arm{'s' if len(runs) > 1 else ''}",
        question=settings.question or _question(runs),
        rows=arms + _references(arms),
        metrics=metrics,
        best={metric.key: best(metric, [row.figures.get(metric.key) for row in arms]) for metric in metrics},
        config_differences=differences,
        command=sweep_command(sweep_dir),
        notes=unused_names(runs, settings.labels),
    )


def write_comparison(sweep_dir: Path, settings: ReportSettings | None = None) -> Comparison:
    """Write the comparison of whatever lies in ``sweep_dir``, each file in one step, and return it.

    Raises:
        UserError: ``sweep_dir`` is no sweep folder.
    """
    from osediff_exp.reporting.html import render_page
    from osediff_exp.reporting.markdown import render_markdown
    from osediff_exp.reporting.picture_grid import render_grid
    from osediff_exp.reporting.pictures import choose_pictures

    comparison = compare(sweep_dir, settings)
    pictures = choose_pictures(comparison.arms)
    grid = render_grid(pictures)
    write_atomically(comparison.csv, render_csv(comparison))
    if grid is None:
        comparison.grid.unlink(missing_ok=True)
    else:
        write_atomically(comparison.grid, grid)
    write_atomically(comparison.markdown, render_markdown(comparison, has_grid=grid is not None))
    write_atomically(comparison.page, render_page(comparison, pictures))
    return comparison


def render_csv(comparison: Comparison) -> str:
    """Return the table as CSV: arm, status, differing config keys, every figure, error, folder; numbers in full precision."""
    rows = comparison.rows
    figures = list(dict.fromkeys(key for row in rows for key in row.figures))
    taken = {"arm", "status", "error", "folder"}
    # A figure and a config key may share a name (steps): the config's then says where it comes from.
    settings = {key: f"config.{key}" if key in {*figures, *taken} else key for key in comparison.config_differences}
    results = {key: f"result.{key}" if key in taken else key for key in figures}
    text = io.StringIO()
    writer = csv.DictWriter(text, ["arm", "status", *settings.values(), *results.values(), "error", "folder"], restval="")
    writer.writeheader()
    for row in rows:
        cells: dict[str, Any] = {"arm": row.label, "status": row.status}
        cells |= {settings[key]: value for key, value in row.settings.items()}
        cells |= {results[key]: value for key, value in row.figures.items()}
        writer.writerow(cells | ({"error": row.run.error, "folder": row.run.name} if row.run else {}))
    return text.getvalue()


def _settings_of(runs: list[Run]) -> ReportSettings:
    nodes = [run.config.get("report") for run in runs if isinstance(run.config, dict)]
    return next((ReportSettings.of(node) for node in nodes if node), ReportSettings())


def _question(runs: list[Run]) -> str:
    keys = list(dict.fromkeys(text.split("=", 1)[0] for arm in differing_overrides(runs) for text in arm)) if len(runs) > 1 else []
    if not keys:
        return ""
    listed = " and ".join([", ".join(keys[:-1]), keys[-1]] if len(keys) > 1 else keys)
    return f"What does changing {listed} do to the restored pictures?"


def _without_bicubic(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if not key.startswith(_BICUBIC)}


def _references(arms: list[Row]) -> list[Row]:
    """Return one bicubic row for all arms, or one per arm group where the arms were validated on different inputs."""
    groups: list[tuple[dict[str, Any], str]] = []
    for arm in arms:
        result = arm.run.result if arm.run else {}
        figures = {key.removeprefix(_BICUBIC): value for key, value in result.items() if key.startswith(_BICUBIC)}
        if figures and not any(_agree(figures, known) for known, _ in groups):
            groups.append((figures, arm.label))
    return [Row("bicubic" if len(groups) == 1 else f"bicubic ({label})", "reference", figures, {}) for figures, label in groups]


def _agree(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two sets of figures are the same up to the rounding that differs between machines (1e-3 relative)."""
    pairs = [(as_number(one[key]), as_number(other[key])) for key in one.keys() & other.keys()]
    return all(a == b or (a is not None and b is not None and abs(a - b) <= 1e-3 * max(abs(a), abs(b))) for a, b in pairs)
