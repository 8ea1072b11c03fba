"""The comparison as a Markdown page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from osediff_exp.reporting.commands import run_command
from osediff_exp.reporting.figures import show_figure, show_interval
from osediff_exp.reporting.wording import how_tested, method_note, show_difference

if TYPE_CHECKING:
    from osediff_exp.reporting.comparison import Comparison, Row
    from osediff_exp.reporting.differences import Difference
    from osediff_exp.reporting.figures import Metric

_ESCAPES = str.maketrans({character: f"\\{character}" for character in "\\`*_[]<>|#"})


def render_markdown(comparison: Comparison, *, has_grid: bool) -> str:
    """Return title, question, table (best in bold), differences, published values, failures, pictures, command and commit."""
    parts = [
        f"# {escape(comparison.title)}",
        escape(comparison.question),
        _table(comparison),
        _legend(comparison),
        _differences(comparison),
        _published(comparison),
        "\n".join(f"- note: {escape(note)}" for note in comparison.notes),
        _problems(comparison),
    ]
    if has_grid:
        parts.append(f"![The same pictures restored by every arm](<{comparison.grid.name}>)")
    parts += [_origin(comparison), f"The whole report: [{comparison.page.name}]({comparison.page.name})"]
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
        cells = [_cell(row, metric, best=place in comparison.best[metric.key]) for metric in comparison.metrics]
        seeds = [f"{len(row.done)}" if row.runs else "-"] if comparison.has_seeds else []
        lines.append([name, *cells, *seeds, *_extras(row)])
    return _markdown(["Arm", *_headings(comparison), *(["Seeds"] if comparison.has_seeds else []), "Steps", "Time"], lines)


def _cell(row: Row, metric: Metric, *, best: bool) -> str:
    text = show_interval(metric, row.intervals.get(metric.key)) if row.runs else metric.show(row.figures.get(metric.key))
    mean, sign, half = text.partition(" \u00b1 ")
    return (f"**{mean}**" if best else mean) + sign + half


def _extras(row: Row) -> list[str]:
    return [escape(show_figure("steps", row.steps)), escape(show_figure("seconds", row.figures.get("seconds")))]


def _legend(comparison: Comparison) -> str:
    if not comparison.metrics:
        return "No arm has finished yet."
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
    return "\n\n".join([heading, _markdown(["Arm", *_headings(comparison)], lines), escape(how_tested(comparison))])


def _verdict(text: str, difference: Difference | None) -> str:
    return f"**{text}** ({difference.verdict})" if difference and difference.verdict in ("better", "worse", "different") else text


def _published(comparison: Comparison) -> str:
    if not comparison.published:
        return ""
    keys = list(dict.fromkeys(key for row in comparison.published.values() for key in row.figures))
    titles = {metric.key: metric.title for metric in comparison.metrics}
    lines = [
        [
            f"{escape(label)}: {escape(row.name)}",
            *(f"{row.figures[key]:g}" if key in row.figures else "-" for key in keys),
            escape(row.source),
        ]
        for label, row in comparison.published.items()
    ]
    return "## Published values\n\n" + _markdown(["Arm", *(escape(titles.get(key, key.upper())) for key in keys), "Source"], lines)


def _problems(comparison: Comparison) -> str:
    lines = [f"- {escape(row.label)}: {escape(run.error)}" for row, run in comparison.problems if run.status == "failed"]
    return "\n".join(["Failed arms:", "", *lines] if lines else [])


def _origin(comparison: Comparison) -> str:
    runs = [run for row in comparison.arms for run in row.runs]
    commits = dict.fromkeys(str(run.result["commit"]) for run in runs if run.result.get("commit"))
    versions = dict.fromkeys(str(run.result["version"]) for run in runs if run.result.get("version"))
    commands = [comparison.command] if comparison.command else [run_command(run) for run in runs]
    block = "\n".join(["Made by:", "", *(f"    {' '.join(command.split())}" for command in commands if command)] if any(commands) else [])
    origin = [f"Version {escape(', '.join(versions))}"] if versions else []
    origin += [f"commit {escape(', '.join(commits))}"] if commits else []
    return "\n\n".join(part for part in (block, ", ".join(origin)) if part)
