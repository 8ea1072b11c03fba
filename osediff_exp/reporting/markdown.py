"""The comparison as a Markdown page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from osediff_exp.reporting.commands import run_command
from osediff_exp.reporting.figures import show_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from osediff_exp.reporting.comparison import Comparison, Row

_ESCAPES = str.maketrans({character: f"\\{character}" for character in "\\`*_[]<>|#"})


def render_markdown(comparison: Comparison, *, has_grid: bool) -> str:
    """Return title, question, table (best in bold), failures, pictures, command and commit."""
    parts = [
        f"# {escape(comparison.title)}",
        escape(comparison.question),
        _table(comparison),
        _legend(comparison),
        _failures(comparison.arms),
    ]
    if has_grid:
        parts.append(f"![The same pictures restored by every arm](<{comparison.grid.name}>)")
    parts += [_origin(comparison), f"The whole report: [{comparison.page.name}]({comparison.page.name})"]
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: str) -> str:
    """Take the meaning of Markdown's signs from ``text``, and its line breaks."""
    return " ".join(text.split()).translate(_ESCAPES)


def _table(comparison: Comparison) -> str:
    header = ["Arm", *(f"{escape(metric.title)} {metric.arrow}".strip() for metric in comparison.metrics), "Steps", "Time"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for place, row in enumerate(comparison.rows):
        name = escape(row.label) + ("" if row.status in ("done", "reference") else f" ({row.status})")
        cells = [
            f"**{metric.show(row.figures.get(metric.key))}**"
            if place in comparison.best[metric.key]
            else metric.show(row.figures.get(metric.key))
            for metric in comparison.metrics
        ]
        lines.append([name, *cells, _figure(row, "steps"), _figure(row, "seconds")])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figure(row: Row, key: str) -> str:
    value = row.figures.get(key, row.run.last_step if row.run and key == "steps" else None)
    return escape(show_figure(key, value))


def _legend(comparison: Comparison) -> str:
    if not comparison.metrics:
        return "No arm has finished yet."
    return "Arrows point to better values; the best arm per column is bold. `bicubic` is the low-quality picture merely enlarged."


def _failures(arms: Sequence[Row]) -> str:
    failed = [row for row in arms if row.status == "failed" and row.run]
    return "\n".join(
        ["Failed arms:", "", *(f"- {escape(row.label)}: {escape(row.run.error)}" for row in failed if row.run)] if failed else []
    )


def _origin(comparison: Comparison) -> str:
    commits = dict.fromkeys(str(row.figures["commit"]) for row in comparison.arms if row.figures.get("commit"))
    versions = dict.fromkeys(str(row.figures["version"]) for row in comparison.arms if row.figures.get("version"))
    commands = [comparison.command] if comparison.command else [run_command(row.run) for row in comparison.arms if row.run]
    block = "\n".join(["Made by:", "", *(f"    {' '.join(command.split())}" for command in commands if command)] if any(commands) else [])
    origin = [f"Version {escape(', '.join(versions))}"] if versions else []
    origin += [f"commit {escape(', '.join(commits))}"] if commits else []
    return "\n\n".join(part for part in (block, ", ".join(origin)) if part)
