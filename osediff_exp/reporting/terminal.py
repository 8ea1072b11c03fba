"""The comparison as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from osediff_exp.reporting.figures import show_figure, show_interval
from osediff_exp.reporting.wording import how_to_go_on, last_words, missing_jobs

if TYPE_CHECKING:
    from rich.console import Console

    from osediff_exp.reporting.comparison import Comparison, Row
    from osediff_exp.reporting.figures import Metric


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the table, the errors of failed arms, notes, and where the report lies."""
    console.print(summary_table(comparison))
    for row, run in comparison.problems:
        console.print(Text.assemble((f"{run.status}: {row.label}: ", "red" if run.error else "yellow"), last_words(run)), soft_wrap=True)
    for line in filter(None, [missing_jobs(comparison.never_started), how_to_go_on(comparison)]):
        console.print(Text(line, "yellow"), soft_wrap=True)
    for note in comparison.notes:
        console.print(Text(f"note: {note}", "yellow"), soft_wrap=True)
    console.print(Text(f"report: {comparison.page}"), soft_wrap=True)


def summary_table(comparison: Comparison) -> Table:
    """Return arms x metrics, the best in bold. Cells are Text: a label such as terms=[mse,vsd] is no markup."""
    table = Table(title=Text(comparison.title))
    table.add_column("arm")
    for metric in comparison.metrics:
        table.add_column(Text(f"{metric.title} {metric.arrow}".strip()), justify="right")
    table.add_column("time", justify="right")
    for place, row in enumerate(comparison.rows):
        style = "dim" if not row.runs else "red" if row.status == "failed" else ""
        cells = [
            Text(_figure(row, metric), "bold green" if place in comparison.best[metric.key] else style) for metric in comparison.metrics
        ]
        table.add_row(Text(_name(row), style), *cells, Text(show_figure("seconds", row.figures.get("seconds")), style))
    return table


def _figure(row: Row, metric: Metric) -> str:
    return show_interval(metric, row.intervals.get(metric.key)) if row.runs else metric.show(row.figures.get(metric.key))


def _name(row: Row) -> str:
    if row.problems and len(row.runs) > 1:
        return f"{row.label} ({len(row.done)} of {len(row.runs)} seeds)"
    return row.label if row.status in ("done", "reference") else f"{row.label} ({row.status})"
