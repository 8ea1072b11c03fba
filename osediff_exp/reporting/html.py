"""The comparison as one self-contained page; what it shows is prepared here, how it looks stands in ``templates/``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from osediff_exp.reporting.commands import run_command
from osediff_exp.reporting.cost_planes import ABOUT as ABOUT_SECONDS
from osediff_exp.reporting.cost_planes import cost_planes
from osediff_exp.reporting.curves import colour_class
from osediff_exp.reporting.embedding import embed
from osediff_exp.reporting.figure_tables import cost_table, environment_table, other_figures
from osediff_exp.reporting.figures import show_figure
from osediff_exp.reporting.labels import in_short
from osediff_exp.reporting.page_cards import cards
from osediff_exp.reporting.page_curves import curve_sections, planes
from osediff_exp.reporting.page_tables import published_table, result_cell, strips
from osediff_exp.reporting.paper_costs import ABOUT, paper_costs
from osediff_exp.reporting.run_folders import missing_jobs
from osediff_exp.reporting.wording import how_tested, how_to_go_on, last_words, marks_meaning, method_note

if TYPE_CHECKING:
    from osediff_exp.reporting.comparison import Comparison
    from osediff_exp.reporting.figures import Metric
    from osediff_exp.reporting.pictures import Pictures


def render_page(comparison: Comparison, pictures: Pictures) -> str:
    """Return the HTML of the whole report. Everything that comes from runs or settings is escaped by the template."""
    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    machines = _of_finished(comparison, environment_table(comparison))
    return environment.get_template("report.html.j2").render(
        comparison=comparison,
        colour=lambda row: colour_class(comparison.rows.index(row)),
        cards=cards(comparison),
        cells=[[result_cell(comparison, place, metric) for metric in comparison.metrics] for place in range(len(comparison.rows))],
        strips=strips(comparison),
        how_tested=how_tested(comparison),
        marks_meaning=marks_meaning(comparison),
        method_note=method_note(comparison),
        published=published_table(comparison),
        planes=planes(comparison),
        cost_planes=cost_planes(comparison),
        about_cost_planes=ABOUT_SECONDS,
        curves=curve_sections(comparison),
        pictures=pictures,
        embedded=embed(pictures),
        figures=_figures_of_pictures(pictures, comparison.metrics),
        costs=cost_table(comparison),
        paper_costs=paper_costs(comparison),
        about_paper_costs=ABOUT,
        others=other_figures(comparison),
        configurations=in_short(comparison.config_differences),
        shared_machines={key: values[0] for key, values in machines.items() if len(set(values)) == 1},
        own_machines={key: values for key, values in machines.items() if len(set(values)) > 1},
        unfinished=[(row, run, last_words(run)) for row, run in comparison.problems],
        never_started=missing_jobs(comparison.never_started),
        how_to_go_on=how_to_go_on(comparison),
        commands=[(row, run, command) for row in comparison.arms for run in row.runs if (command := run_command(run))],
        summary=_summary(comparison, pictures),
        show_figure=show_figure,
    )


def _of_finished(comparison: Comparison, table: dict[str, list[str]]) -> dict[str, list[str]]:
    """Leave out arms without figures where all others agree: what an unfinished arm has not said is no difference."""
    done = [place for place, row in enumerate(comparison.arms) if row.done]
    agreed = {key: {values[place] for place in done} for key, values in table.items()}
    return {key: [*agreed[key]] * len(values) if len(agreed[key]) == 1 else values for key, values in table.items()}


def _summary(comparison: Comparison, pictures: Pictures) -> list[str]:
    """Return the few facts under the heading: arms, seeds, pictures, commit."""
    arms, runs = comparison.arms, [run for row in comparison.arms for run in row.runs]
    counts = [run.result.get("num_val_images") or run.result.get("num_images") or len(run.per_image) for run in runs if run.result]
    tested = {str(number) for number in counts if number} or {str(len(pictures.names))}
    seeds = sorted({len(row.runs) for row in arms})
    commits = list(dict.fromkeys(str(run.result["commit"])[:10] for run in runs if run.result.get("commit")))
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return [
        f"{len(arms)} arm{'s' if len(arms) != 1 else ''}",
        f"{count} seed{'s' if seeds != [1] else ''} each",
        f"{' or '.join(sorted(tested))} test pictures",
        *([f"commit {', '.join(commits)}"] if commits else []),
    ]


def _figures_of_pictures(pictures: Pictures, metrics: list[Metric]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Return (column title, picture name) -> that picture's own (metric, value), for arms and for bicubic: of the run it was made in."""
    found = {}
    for column in (column for column in pictures.columns if column.kind in ("output", "bicubic")):
        prefix = "" if column.arm else "bicubic_"
        for name, values in (pair for run in reversed(column.runs) for pair in run.per_image.items()):  # the first one's win
            found[column.title, name] = [
                (m.title, m.show(values[prefix + m.key])) for m in metrics if prefix + m.key in values and not m.of_set
            ]
    return found
