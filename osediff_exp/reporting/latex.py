"""The comparison as a LaTeX table (booktabs) that can be pasted into a paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from osediff_exp.reporting.figures import Metric, show_interval
from osediff_exp.reporting.wording import method_note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from osediff_exp.reporting.comparison import Comparison, Row

_ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip
_ARROWS = {"higher": r" $\uparrow$", "lower": r" $\downarrow$", "unknown": ""}
_MARKS = {"better": r"$^{+}$", "worse": r"$^{-}$", "different": r"$^{*}$"}


def render_latex(comparison: Comparison) -> str:
    """Return a ``table`` environment: mean and half width of the 95 % interval over seeds, best in bold, significance marked.

    It needs ``\\usepackage{booktabs}``.
    """
    metrics = comparison.metrics
    header = ["Arm", *(escape(metric.title) + _ARROWS[metric.better] for metric in metrics)]
    end = "" if comparison.title.endswith(("?", "!", ".")) else "."
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(comparison.title)}{end} {_legend(comparison)}}}",
        rf"\begin{{tabular}}{{l{'r' * len(metrics)}}}",
        r"\toprule",
        _line(header),
        r"\midrule",
        *(_line([_name(row), *_cells(comparison, place, metrics)]) for place, row in enumerate(comparison.rows) if row.runs),
    ]
    if comparison.references:
        lines.append(r"\midrule")
    lines += [_line([_name(row), *_cells(comparison, place, metrics)]) for place, row in enumerate(comparison.rows) if not row.runs]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def escape(text: str) -> str:
    """Take the meaning of LaTeX's signs from ``text``, and its line breaks."""
    return "".join(_ESCAPES.get(character, character) for character in " ".join(text.split()))


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _name(row: Row) -> str:
    return escape(row.label if row.status in ("done", "reference") else f"{row.label} ({row.status})")


def _cells(comparison: Comparison, place: int, metrics: Sequence[Metric]) -> list[str]:
    row = comparison.rows[place]
    cells = []
    for metric in metrics:
        interval = row.intervals.get(metric.key)
        text = show_interval(metric, interval) if row.runs else metric.show(row.figures.get(metric.key))
        mean, sign, half = text.partition(" \u00b1 ")
        mean = rf"\textbf{{{mean}}}" if place in comparison.best[metric.key] else mean
        difference = comparison.differences.get((row.label, metric.key))
        mark = _MARKS.get(difference.verdict, "") if difference else ""
        cells.append(mean + (rf" {{\scriptsize $\pm$ {half}}}" if sign else "") + mark)
    return cells


def _legend(comparison: Comparison) -> str:
    marks = r"$^{+}$/$^{-}$: better/worse than the baseline, $p < 0.05$ after Holm's correction. " if comparison.differences else ""
    return marks + escape(method_note(comparison))
