"""The comparison as one self-contained page; what it shows is prepared here, how it looks stands in ``templates/``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from osediff_exp.reporting.commands import run_command
from osediff_exp.reporting.curves import NUM_COLOURS, Series, plot
from osediff_exp.reporting.embedding import embed
from osediff_exp.reporting.figures import Metric, as_number, show_figure

if TYPE_CHECKING:
    from osediff_exp.reporting.comparison import Comparison, Row
    from osediff_exp.reporting.pictures import Pictures

_LOSSES = {"loss", "mse", "l1", "l2", "lpips", "st_lpips", "gan", "vsd", "total"}
_DIAGNOSTICS = ("vsd", "score", "prior", "critic")
_SECTIONS = ("Validation", "Training losses", "VSD diagnostics", "Training")
_ENVIRONMENT = ("task", "version", "commit", "machine", "device")


@dataclass(frozen=True)
class Cell:
    """A cell of the results table: text, sort key ("" sorts last), whether it is the best, distance to bicubic."""

    text: str
    sort: str = ""
    best: bool = False
    gain: str = ""
    better: bool = False


def render_page(comparison: Comparison, pictures: Pictures) -> str:
    """Return the HTML of the whole report. Everything that comes from runs or settings is escaped by the template."""
    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    embedded = embed(pictures)
    return environment.get_template("report.html.j2").render(
        comparison=comparison,
        colour=lambda row: f"s{comparison.rows.index(row) % NUM_COLOURS}",
        cells=[[_cell(comparison, place, metric) for metric in comparison.metrics] for place in range(len(comparison.rows))],
        winners=_winners(comparison),
        curves=_curves(comparison),
        pictures=pictures,
        embedded=embedded,
        captions=_captions(pictures, comparison.metrics),
        costs=_figure_table(comparison, environment=False),
        machines=_figure_table(comparison, environment=True),
        commands=[(row.label, run_command(row.run)) for row in comparison.arms if row.run],
        show_figure=show_figure,
    )


def _own_bicubic(row: Row) -> dict[str, Any]:
    result = row.run.result if row.run else {}
    return {key.removeprefix("bicubic_"): value for key, value in result.items() if key.startswith("bicubic_")}


def _cell(comparison: Comparison, place: int, metric: Metric) -> Cell:
    row = comparison.rows[place]
    value = as_number(row.figures.get(metric.key))
    if value is None:
        return Cell("-")
    base = as_number(_own_bicubic(row).get(metric.key))
    gain = "" if base is None else f"{value - base:+.{metric.digits}f}"
    better = base is not None and (value > base if metric.better == "higher" else value < base)
    return Cell(metric.show(value), repr(value), place in comparison.best[metric.key], gain, better)


def _winners(comparison: Comparison) -> list[dict[str, Any]]:
    """Return metric by metric the best arms and their value, where at least two arms can be compared."""
    finished = [row for row in comparison.arms if row.status == "done"]
    return [
        {
            "metric": metric,
            "arms": [row for place, row in enumerate(comparison.rows) if place in comparison.best[metric.key]],
            "value": metric.show(comparison.rows[min(comparison.best[metric.key])].figures.get(metric.key)),
        }
        for metric in comparison.metrics
        if len(finished) > 1 and comparison.best[metric.key]
    ]


def _section(key: str) -> str:
    last = key.rsplit("/", 1)[-1]
    if key.startswith("val"):
        return "Validation"
    if last in _LOSSES or "loss" in last:
        return "Training losses"
    return "VSD diagnostics" if any(word in key for word in _DIAGNOSTICS) else "Training"


def _curves(comparison: Comparison) -> list[tuple[str, list[tuple[str, Markup]]]]:
    """Return (section, [(figure, SVG)]) for every logged figure, sections in their fixed order."""
    arms = [(place, row.label, row.run.curves) for place, row in enumerate(comparison.rows) if row.run]
    sections: dict[str, list[tuple[str, Markup]]] = {name: [] for name in _SECTIONS}
    keys = dict.fromkeys(key for _, _, curves in arms for key in curves)
    for key in (key for key in keys if not key.startswith("val/bicubic_")):  # constants: the table has them
        svg = plot(key, [Series(label, place, curves[key]) for place, label, curves in arms if key in curves])
        if svg:
            sections[_section(key)].append((key, Markup(svg)))
    return [(name, plots) for name, plots in sections.items() if plots]


def _captions(pictures: Pictures, metrics: list[Metric]) -> dict[tuple[str, str], str]:
    """Return (column title, picture name) -> that picture's own figures, for arms and for bicubic."""
    arms = [column.arm for column in pictures.columns if column.arm is not None]
    captions = {}
    for column in pictures.columns:
        arm = column.arm or (arms[0] if column.kind == "bicubic" and arms else None)
        prefix = "" if column.arm else "bicubic_"
        for name, values in (arm.run.per_image if arm and arm.run else {}).items():
            shown = [f"{metric.title} {metric.show(values[prefix + metric.key])}" for metric in metrics if prefix + metric.key in values]
            captions[column.title, name] = ", ".join(shown)
    return captions


def _figure_table(comparison: Comparison, *, environment: bool) -> dict[str, list[str]]:
    """Return figure -> text per arm: numbers are costs, texts and the known names describe the environment."""
    metrics = {metric.key for metric in comparison.metrics}
    table = {}
    for key in dict.fromkeys(key for row in comparison.arms for key in row.figures if key not in metrics):
        values = [row.figures.get(key) for row in comparison.arms]
        described = key in _ENVIRONMENT or all(as_number(value) is None for value in values)
        if described == environment:
            table[key] = [show_figure(key, value) for value in values]
    return table
