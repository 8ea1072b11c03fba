"""The comparison as a LaTeX table (booktabs) that can be pasted into a paper."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from osediff_exp.reporting.figures import Metric, metric_named, show_interval
from osediff_exp.reporting.wording import method_note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from osediff_exp.reporting.comparison import Comparison, Row

_ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "[": "{[}", "]": "{]}", "*": "{*}",  # at the head of a row, \\ would take them for its own
    '"': r"\textquotedbl{}", "\u2013": r"\textendash{}", "\u2014": r"\textemdash{}", "\u2026": r"\ldots{}",
    "\u00b1": r"$\pm$", "\u00d7": r"$\times$", "\u2192": r"$\rightarrow$", "\u2264": r"$\leq$", "\u2265": r"$\geq$",
    "\u2212": "$-$", "\u221e": r"$\infty$",
}  # fmt: skip
_ARROWS = {"higher": r"~$\uparrow$", "lower": r"~$\downarrow$", "unknown": ""}
_END = (r"\bottomrule", r"\end{tabular}", r"\end{adjustbox}", r"\end{table}")
_SIGNS = {"better": "+", "worse": "-", "different": r"\ast"}


def render_latex(comparison: Comparison) -> str:
    """Return a ``table`` environment: mean and half width of the 95 % interval over seeds, best in bold, significance marked.
    What is odd about the arms stands above it as comments.

    A second one follows where values were published for the arms. Both compile with pdfLaTeX and any newer engine; the packages that they
    need stand in the first lines. A table wider than the text is scaled down to it.
    """
    metrics = comparison.metrics
    wide = _has_more_than_means(comparison)
    rows = [_line([_name(row), *_cells(comparison, place, metrics, wide=wide)]) for place, row in enumerate(comparison.rows)]
    num_arms = len(comparison.arms)
    end = "" if comparison.title.endswith(("?", "!", ".")) else "."
    lines = [
        r"% needs \usepackage{booktabs} and",
        r"% \usepackage{adjustbox} and \usepackage[T1]{fontenc}",
        *(f"% note: {' '.join(note.split())}" for note in comparison.notes),
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(comparison.title)}{end} {_legend(comparison)}}}",
        r"\smallskip",
        r"\setlength{\tabcolsep}{4pt}",
        r"\begin{adjustbox}{max width=\textwidth}",
        # Means end and their intervals begin at one line: a mark or a missing interval does not shift the numbers.
        rf"\begin{{tabular}}{{l{('r@{}l' if wide else 'r') * len(metrics)}}}",
        r"\toprule",
        _line(["Arm", *(_heading(metric, wide=wide) for metric in metrics)]),
        r"\midrule",
        *rows[:num_arms],
        *([r"\midrule", *rows[num_arms:]] if comparison.references else []),
    ]
    return "\n".join([*lines, *_END, *_published(comparison)]) + "\n"


def _published(comparison: Comparison) -> list[str]:
    """Return a second table: what papers printed for the arms, digit for digit."""
    rows = comparison.published
    if not rows:
        return []
    metrics = [metric_named(key) for key in dict.fromkeys(key for row in rows.values() for key in row.figures)]
    remarks = any(row.note for row in rows.values())
    sources = escape("; ".join(dict.fromkeys(row.source for row in rows.values())))
    return [
        "",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{Published values for the arms of this comparison: {sources}.}}",
        r"\smallskip",
        r"\setlength{\tabcolsep}{4pt}",
        r"\begin{adjustbox}{max width=\textwidth}",
        rf"\begin{{tabular}}{{l{'r' * len(metrics)}{'l' * remarks}}}",
        r"\toprule",
        _line(["Arm", *(_heading(metric, wide=False) for metric in metrics), *([""] if remarks else [])]),
        r"\midrule",
        *(
            _line([escape(label), *(row.printed.get(m.key, "--") for m in metrics), *([escape(row.note)] if remarks else [])])
            for label, row in rows.items()
        ),
        *_END,
    ]


def escape(text: str) -> str:
    """Take the meaning of LaTeX's signs from ``text``, and its line breaks; write signs that pdfLaTeX lacks in a way that it knows."""
    escaped = "".join(_ESCAPES.get(character) or _known(character) for character in " ".join(text.split()))
    return escaped.replace("--", "-{}-")  # two hyphens are not meant as a dash


def _known(character: str) -> str:
    """Return what pdfLaTeX can set: European letters as they are, Greek as mathematics, others as their code point."""
    if ord(character) < 0x180:
        return character
    words = unicodedata.name(character, "").split()
    if words[:3] == ["GREEK", "SMALL", "LETTER"] and len(words) == 4 and words[3] != "OMICRON":
        return rf"$\{words[3].lower().replace('lamda', 'lambda')}$"
    plain = unicodedata.normalize("NFKC", character)
    return escape(plain) if plain != character else f"U+{ord(character):04X}"


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _heading(metric: Metric, *, wide: bool) -> str:
    title = escape(metric.title) + _ARROWS[metric.better]
    return rf"\multicolumn{{2}}{{c}}{{{title}}}" if wide else title


def _name(row: Row) -> str:
    return escape(row.label if row.status in ("done", "reference") else f"{row.label} ({row.status})")


def _has_more_than_means(comparison: Comparison) -> bool:
    """Whether any mean has an interval, a mark or a count to its right."""
    intervals = [row.intervals[metric.key] for row in comparison.arms for metric in comparison.metrics if metric.key in row.intervals]
    marks = any(one.support for one in comparison.differences.values())
    return marks or bool(comparison.behind) or any(interval.half is not None for interval in intervals)


def _cells(comparison: Comparison, place: int, metrics: Sequence[Metric], *, wide: bool) -> list[str]:
    row = comparison.rows[place]
    cells = []
    for metric in metrics:
        text = show_interval(metric, row.intervals.get(metric.key)) if row.runs else metric.show(row.figures.get(metric.key))
        mean, sign, half = text.partition(" \u00b1 ")
        mean = rf"\textbf{{{mean}}}" if place in comparison.best[metric.key] else "--" if mean == "-" else mean
        mark = _mark(comparison, row, metric)
        if wide:
            behind = comparison.behind_text(row, metric)
            parts = [rf"{{\scriptsize\,$\pm$\,{half}}}" if sign else "", mark, rf"{{\scriptsize\,({behind})}}" if behind else ""]
            cells += [mean, "".join(parts)]
        else:
            cells.append(mean)
    return cells


def _mark(comparison: Comparison, row: Row, metric: Metric) -> str:
    """Return the sign of a significant difference, in brackets where it is not established over seeds."""
    difference = comparison.differences.get((row.label, metric.key))
    sign = _SIGNS.get(difference.verdict) if difference else None
    if difference is None or sign is None:
        return ""
    return f"$^{{{sign}}}$" if difference.support == "seeds" else f"$^{{({sign})}}$"


def _legend(comparison: Comparison) -> str:
    marks = ""
    if comparison.baseline and any(one.support for one in comparison.differences.values()):
        marks = (
            rf"$^{{+}}$/$^{{-}}$/$^{{\ast}}$: better/worse/different from {escape(comparison.baseline.label)}, adjusted $p < 0.05$ over "
            r"pictures and 95\,\% interval over seeds; in brackets: over pictures only, not established over seeds. "
        )
    return marks + escape(method_note(comparison)) + " Best in bold."
