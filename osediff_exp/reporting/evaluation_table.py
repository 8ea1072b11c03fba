"""The table of an evaluation: the restorers measured here, and below them the rows that papers have published for the test set."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from osediff_exp.photo_units import is_standard_error
from osediff_exp.reporting.figures import Metric, best, metrics_of
from osediff_exp.reporting.markdown import escape
from osediff_exp.reporting.published import SOURCE, PublishedRow, published_rows, published_set_size

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

_CELL = 10  # characters of a column with its frame: a heading such as ST-LPIPS and an arrow need no more
_ENDLESS = 10_000


@dataclass(frozen=True)
class MeasuredRow:
    """One restorer: its label, the number of pictures it was scored on, its figures by metric key, its steps (None: not known), and the
    metrics that lack a figure for some of its pictures."""

    label: str
    num_images: int
    figures: Mapping[str, float]
    steps: int | None = None
    lacking: Collection[str] = ()


@dataclass(frozen=True, kw_only=True)
class EvaluationTable:
    """What was measured on a test set, and what is published for it.

    Args:
        dataset: name of the test set; published rows are looked up by it.
        num_images: pictures of the test set that took part.
        measured: rows in the order of the command.
        notes: sentences below the table.
    """

    dataset: str
    num_images: int
    measured: Sequence[MeasuredRow]
    notes: Sequence[str] = field(default=())

    @property
    def published(self) -> list[PublishedRow]:
        """The published rows of the test set; none where there are none."""
        return published_rows(self.dataset)

    @property
    def metrics(self) -> list[Metric]:
        """The columns: every metric measured or published, known ones in the usual order."""
        figures = [dict(row.figures) for row in self.measured] + [dict(row.figures) for row in self.published]
        known = metrics_of(figures)
        keys = dict.fromkeys(key for row in figures for key in row)
        others = [key for key in keys if key not in {metric.key for metric in known} and not is_standard_error(key, keys)]
        return known + [Metric(key, key, "unknown", 4, "") for key in others]

    def best(self, metric: Metric) -> set[int]:
        """Return the places of the best measured rows; one whose figure is not of every picture of the test set has no part."""
        whole = [row.num_images == self.num_images and metric.key not in row.lacking for row in self.measured]
        return best(
            metric, [row.figures.get(metric.key) if all_of_it else None for row, all_of_it in zip(self.measured, whole, strict=True)]
        )

    def remarks(self) -> list[str]:
        """Return the notes, then what the published rows may be compared with."""
        return [*self.notes, *self._about_published()]

    def _about_published(self) -> list[str]:
        size = published_set_size(self.dataset)
        if size is None:
            return []
        about = (
            f"Published rows: {SOURCE}, Table 1: averages over the {size} crops of {self.dataset} (128 to 512 px) that the field shares. "
            "PSNR and SSIM are on luma, and the protocol is the one used here; other crops give other figures."
        )
        other = f"Measured on {_pictures(self.num_images)}, published on {size}: measured and published rows do not compare."
        return [about] + ([other] if size != self.num_images else [])


def _pictures(number: int) -> str:
    return f"{number} picture" + ("" if number == 1 else "s")


def to_csv(table: EvaluationTable) -> str:
    """Return origin (measured, published), method, steps, num_images and the metrics, empty where there is no figure."""
    keys = [metric.key for metric in table.metrics]
    lines: list[list[Any]] = [["origin", "method", "steps", "num_images", *keys]]
    lines += [["measured", row.label, row.steps, row.num_images, *_numbers(row.figures, keys)] for row in table.measured]
    size = published_set_size(table.dataset)
    lines += [["published", row.method, row.steps, size, *(row.printed.get(key, "") for key in keys)] for row in table.published]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _numbers(figures: Mapping[str, float], keys: Sequence[str]) -> list[str]:
    return [f"{figures[key]:.6g}" if key in figures else "" for key in keys]


def to_markdown(table: EvaluationTable) -> str:
    """Return the table with its notes; the best measured figures are bold."""
    metrics = table.metrics
    lines = [["Method", "Steps", "Pictures", *(f"{escape(metric.title)} {metric.arrow}".strip() for metric in metrics)]]
    lines.append(["---", *["---:"] * (len(metrics) + 2)])
    for place, row in enumerate(table.measured):
        cells = [_bold(metric.show(row.figures.get(metric.key)), place in table.best(metric)) for metric in metrics]
        lines.append([escape(row.label), "" if row.steps is None else str(row.steps), str(row.num_images), *cells])
    size = published_set_size(table.dataset)
    for published in table.published:
        cells = [published.printed.get(metric.key, "-") for metric in metrics]
        lines.append([f"{escape(published.method)} (published)", str(published.steps), str(size), *cells])
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    remarks = "\n".join(
        f"- {escape(remark)}" for remark in ["Best measured figures are bold, of those over all pictures.", *table.remarks()]
    )
    return f"# {escape(table.dataset)}: {_pictures(table.num_images)}\n\n{body}\n\n{remarks}\n"


def _steps(row: MeasuredRow) -> str:
    return "-" if row.steps is None else str(row.steps)


def _bold(text: str, is_best: bool) -> str:
    return f"**{text}**" if is_best else text


def print_table(table: EvaluationTable, console: Console, *, seconds: Mapping[str, float]) -> None:
    """Print the table and its remarks; ``seconds`` per picture by label. On a narrow terminal the metrics go into several tables."""
    if not console.is_terminal:  # a log or a pipe takes lines of any length
        console = Console(file=console.file, width=_ENDLESS)
    for metrics in _blocks(table, console.width):
        console.print(_rich(table, metrics, seconds))
    for remark in table.remarks():
        console.print(Text(remark, "dim"), soft_wrap=True)


def _blocks(table: EvaluationTable, width: int) -> Iterator[list[Metric]]:
    names = [*(row.label for row in table.measured), *(row.method for row in table.published)]
    room = max(1, (width - max(map(len, names), default=0) - 3 * _CELL) // _CELL)
    metrics = table.metrics
    yield from (metrics[first : first + room] for first in range(0, len(metrics), room))


def _rich(table: EvaluationTable, metrics: Sequence[Metric], seconds: Mapping[str, float]) -> Table:
    shown = Table(title=Text(f"{table.dataset}: {_pictures(table.num_images)}"))
    shown.add_column("method", no_wrap=True)
    for heading in ("steps", "s/picture", *(f"{metric.title} {metric.arrow}".strip() for metric in metrics)):
        shown.add_column(Text(heading), justify="right", no_wrap=True)
    for place, row in enumerate(table.measured):
        cells = [Text(metric.show(row.figures.get(metric.key)), "bold green" if place in table.best(metric) else "") for metric in metrics]
        shown.add_row(Text(row.label), _steps(row), f"{seconds[row.label]:.3g}" if row.label in seconds else "-", *cells)
    shown.add_section()
    for published in table.published:
        figures = [Text(published.printed.get(metric.key, "-"), "dim") for metric in metrics]
        shown.add_row(Text(published.method, "dim"), Text(str(published.steps), "dim"), "", *figures)
    return shown
