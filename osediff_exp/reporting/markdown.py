"""The comparison as a Markdown page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from osediff_exp.reporting.commands import run_command
from osediff_exp.reporting.cost_planes import ABOUT as ABOUT_SECONDS
from osediff_exp.reporting.cost_planes import cost_planes
from osediff_exp.reporting.figure_tables import cost_table, environment_table
from osediff_exp.reporting.figures import metric_named, show_figure, show_interval
from osediff_exp.reporting.labels import in_short
from osediff_exp.reporting.paper_costs import ABOUT, paper_costs
from osediff_exp.reporting.run_folders import missing_jobs
from osediff_exp.reporting.wording import how_tested, how_to_go_on, last_words, method_note, show_claim, show_difference

if TYPE_CHECKING:
    from osediff_exp.reporting.comparison import Comparison
    from osediff_exp.reporting.differences import Difference
    from osediff_exp.reporting.figures import Metric

_ESCAPES = str.maketrans({character: f"\\{character}" for character in "\\`*_[]<>|#"})


def render_markdown(comparison: Comparison, *, has_grid: bool) -> str:
    """Return the sections of the page, in short: question, what has not finished, table (best in bold), differences, published values,
    pictures, cost, configurations, environment, command and commit.
    """
    parts = [
        f"# {escape(comparison.title)}",
        escape(comparison.question),
        _problems(comparison),
        _table(comparison),
        _legend(comparison),
        _differences(comparison),
        _published(comparison),
        "\n".join(f"- note: {escape(note)}" for note in comparison.notes),
    ]
    if has_grid:
        parts.append(f"![The same pictures restored by every arm](<{comparison.grid.name}>)")
    parts += [
        _costs(comparison),
        _cost_plane(comparison),
        _paper_costs(comparison),
        _configurations(comparison),
        _environment(comparison),
        _origin(comparison),
    ]
    parts += [f"The whole report: [{comparison.page.name}]({comparison.page.name})"]
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: str) -> str:
    """Take the meaning of Markdown's signs from ``text``, and its line breaks."""
    return " ".join(text.split()).translate(_ESCAPES)


def _markdown(header: list[str], lines: list[list[str]]) -> str:
    table = [header, ["---", *["---:"] * (len(header) - 1)], *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in table)


def _headings(comparison: Comparison) -> list[str]:
    return [f"{escape(metric.title)} {metric.arrow}".strip() for metric in comparison.metrics]


def _table(comparison: Comparison) -> str:
    lines = []
    for place, row in enumerate(comparison.rows):
        name = escape(row.label) + ("" if row.status in ("done", "reference") else f" ({row.status})")
        cells = [_cell(comparison, place, metric) for metric in comparison.metrics]
        seeds = [f"{len(row.done)}" if row.runs else "-"] if comparison.has_seeds else []
        extras = [escape(show_figure("steps", comparison.steps(row))), escape(show_figure(comparison.time_key, comparison.time(row)))]
        lines.append([name, *cells, *seeds, *extras])
    seeds_heading = ["Seeds"] if comparison.has_seeds else []
    return _markdown(["Arm", *_headings(comparison), *seeds_heading, comparison.steps_title, comparison.time_title], lines)


def _cell(comparison: Comparison, place: int, metric: Metric) -> str:
    row = comparison.rows[place]
    text = show_interval(metric, row.intervals.get(metric.key)) if row.runs else metric.show(row.figures.get(metric.key))
    mean, sign, half = text.partition(" \u00b1 ")
    behind = comparison.behind_text(row, metric)
    return (f"**{mean}**" if place in comparison.best[metric.key] else mean) + sign + half + (f" ({behind})" if behind else "")


def _legend(comparison: Comparison) -> str:
    if not comparison.metrics:
        return method_note(comparison)
    reference = " `bicubic` is the low-quality picture merely enlarged." if comparison.references else ""
    return f"Arrows point to better values; the best arm per column is bold.{reference} {method_note(comparison)}"


def _differences(comparison: Comparison) -> str:
    if not comparison.differences or comparison.baseline is None:
        return ""
    lines = []
    for row in comparison.arms:
        found = [comparison.differences.get((row.label, metric.key)) for metric in comparison.metrics]
        if any(found):
            cells = [escape(show_difference(metric, one)) for metric, one in zip(comparison.metrics, found, strict=True)]
            lines.append([escape(row.label), *(_verdict(text, one) for text, one in zip(cells, found, strict=True))])
    heading = f"## Differences from {escape(comparison.baseline.label)}"
    return "\n\n".join([heading, _markdown(["Arm", *_headings(comparison)], lines), escape(" ".join(how_tested(comparison)))])


def _verdict(text: str, difference: Difference | None) -> str:
    """Make bold what is established; say beside the rest of the significant what it lacks."""
    claim = show_claim(difference) if difference else ""
    bold = difference is not None and difference.support == "seeds"
    return (f"**{text}**" if bold else text) + (f" ({claim})" if claim else "")


def _published(comparison: Comparison) -> str:
    if not comparison.published:
        return ""
    metrics = [metric_named(key) for key in dict.fromkeys(key for row in comparison.published.values() for key in row.figures)]
    lines = [
        [f"{escape(label)}: {escape(row.name)}", *(row.show(metric.key) for metric in metrics), escape(row.origin)]
        for label, row in comparison.published.items()
    ]
    heading = ["Arm", *(f"{escape(metric.title)} {metric.arrow}".strip() for metric in metrics), "Source"]
    return "## Published values\n\n" + _markdown(heading, lines)


def _problems(comparison: Comparison) -> str:
    seeds = {id(run): f", seed {run.seed}" if len(row.runs) > 1 else "" for row, run in comparison.problems}
    lines = [f"- {escape(row.label)}{seeds[id(run)]}: {run.status}: {escape(last_words(run))}" for row, run in comparison.problems]
    lines += [f"- {text}" for text in [missing_jobs(comparison.never_started)] if text]
    if not lines:
        return ""
    command = f"\n\n    {comparison.go_on_command}" if comparison.go_on_command else ""
    return "\n".join(["## Not finished", "", *lines, "", how_to_go_on(comparison)]) + command


def _costs(comparison: Comparison) -> str:
    table = cost_table(comparison)
    lines = [[escape(row.label), *(values[place][0] for values in table.values())] for place, row in enumerate(comparison.arms)]
    return "## Cost\n\n" + _markdown(["Arm", *table], lines) if table else ""


def _cost_plane(comparison: Comparison) -> str:
    planes = cost_planes(comparison)
    return f"![{escape(planes[0].title)} against seconds per picture](<{comparison.cost_plane.name}>)\n\n{ABOUT_SECONDS}" if planes else ""


def _paper_costs(comparison: Comparison) -> str:
    titles, rows = paper_costs(comparison)
    lines = [[escape(label), *(f"{measured} ({printed})" for measured, printed in pairs)] for label, pairs in rows]
    heading = "### Measured, and in brackets the paper's Table 2"
    return "\n\n".join([heading, _markdown(["Arm", *titles], lines), escape(ABOUT)]) if lines else ""


def _configurations(comparison: Comparison) -> str:
    """Return the keys in which the arms differ, a line per key: a configuration has more keys than a sweep has arms."""
    lines = [[f"`{key}`", *(escape(value) for value in values)] for key, values in in_short(comparison.config_differences).items()]
    return "## Configurations\n\n" + _markdown(["Key", *(escape(row.label) for row in comparison.arms)], lines) if lines else ""


def _environment(comparison: Comparison) -> str:
    texts = [f"- {key}: {'; '.join(dict.fromkeys(map(escape, values)))}" for key, values in environment_table(comparison).items()]
    return "\n".join(["## Environment", "", *texts]) if texts else ""


def _origin(comparison: Comparison) -> str:
    runs = [run for row in comparison.arms for run in row.runs]
    commits = dict.fromkeys(str(run.result["commit"]) for run in runs if run.result.get("commit"))
    versions = dict.fromkeys(str(run.result["version"]) for run in runs if run.result.get("version"))
    commands = [comparison.command] if comparison.command else list(dict.fromkeys(run_command(run) for run in runs))
    block = "\n".join(["Made by:", "", *(f"    {' '.join(command.split())}" for command in commands if command)] if any(commands) else [])
    origin = [f"Version {escape(', '.join(versions))}"] if versions else []
    origin += [f"commit {escape(', '.join(commits))}"] if commits else []
    return "\n\n".join(part for part in (block, ", ".join(origin)) if part)
