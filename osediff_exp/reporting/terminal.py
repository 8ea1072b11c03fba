"""The comparison as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from osediff_exp.reporting.figures import show_figure, show_interval
from osediff_exp.reporting.run_folders import missing_jobs
from osediff_exp.reporting.wording import how_to_go_on, last_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from osediff_exp.reporting.comparison import Comparison, Row
    from osediff_exp.reporting.figures import Metric

_GAP = 2  # blanks between two columns; the box puts one of them
_MIN_ARM, _MAX_ARM = 16, 60  # characters; longer labels are folded, never cut: their ends tell arms apart


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the table, the errors of failed arms, notes, and where the report lies."""
    for table in summary_tables(comparison, console.width):
        console.print(table)
    for row, run in comparison.problems:
        console.print(Text.assemble((f"{run.status}: {row.label}: ", "red" if run.error else "yellow"), last_words(run)), soft_wrap=True)
    for line in filter(None, [missing_jobs(comparison.never_started), how_to_go_on(comparison)]):
        console.print(Text(line, "yellow"), soft_wrap=True)
    for note in comparison.notes:
        console.print(Text(f"note: {note}", "yellow"), soft_wrap=True)
    console.print(Text(f"report: {comparison.page}"), soft_wrap=True)


def summary_tables(comparison: Comparison, width: int) -> list[Table]:
    """Return arms x metrics, the best in bold, in as many tables as ``width`` characters ask for: no figure is ever cut.

    Where one table would be too wide, the intervals stand below the means. Cells are Text: a label such as terms=[mse,vsd] is no markup.
    """
    names = [_name(row) for row in comparison.rows]
    arm = max(map(len, ["arm", *names]))
    flat = [_metric_column(comparison, metric, " ") for metric in comparison.metrics] + [_time_column(comparison)]
    stacked = [_metric_column(comparison, metric, "\n") for metric in comparison.metrics] + [_time_column(comparison)]
    columns = flat if _width(flat) + min(arm, _MAX_ARM) <= width else stacked
    parts = _split(columns, width - min(arm, _MIN_ARM))
    widths = [min(arm, max(_MIN_ARM, width - _width(part))) for part in parts]
    title = Text(comparison.title, "italic")
    return [_table(comparison, names, part, at, title if part is parts[0] else None) for part, at in zip(parts, widths, strict=True)]


def _table(comparison: Comparison, names: Sequence[str], columns: Sequence[list[Text]], arm: int, title: Text | None) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, _GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("arm", overflow="fold", width=arm)
    for column in columns:
        table.add_column(column[0], justify="right", no_wrap=True, width=_width([column]) - _GAP)
    for place, row in enumerate(comparison.rows):
        table.add_row(Text(names[place], _style(row)), *(column[1 + place] for column in columns))
    return table


def _metric_column(comparison: Comparison, metric: Metric, between: str) -> list[Text]:
    """Return the heading and the cells of a metric; ``between`` stands between a mean and half its interval."""
    cells = []
    for place, row in enumerate(comparison.rows):
        text = show_interval(metric, row.intervals.get(metric.key)) if row.runs else metric.show(row.figures.get(metric.key))
        style = "bold green" if place in comparison.best[metric.key] else _style(row)
        behind = comparison.behind_text(row, metric)
        cells.append(Text(text.replace(" \u00b1", f"{between}\u00b1", 1) + (f"{between}({behind})" if behind else ""), style))
    return [Text(f"{metric.title}{between}{metric.arrow}".strip()), *cells]


def _time_column(comparison: Comparison) -> list[Text]:
    shown = [(show_figure(comparison.time_key, comparison.time(row)), _style(row)) for row in comparison.rows]
    return [Text(comparison.time_title.lower()), *(Text(text, style) for text, style in shown)]


def _width(columns: Sequence[list[Text]]) -> int:
    return sum(_GAP + max(len(line) for cell in column for line in cell.plain.split("\n")) for column in columns)


def _split(columns: Sequence[list[Text]], width: int) -> list[list[list[Text]]]:
    """Divide the columns, in their order, into parts that are at most ``width`` characters wide (one column where even it is wider)."""
    parts: list[list[list[Text]]] = [[]]
    for column in columns:
        if parts[-1] and _width([*parts[-1], column]) > width:
            parts.append([])
        parts[-1].append(column)
    return parts


def _style(row: Row) -> str:
    return "dim" if not row.runs else "red" if row.status == "failed" else ""


def _name(row: Row) -> str:
    if row.problems and len(row.runs) > 1:
        return f"{row.label} ({len(row.done)} of {len(row.runs)} seeds)"
    return row.label if row.status in ("done", "reference") else f"{row.label} ({row.status})"
