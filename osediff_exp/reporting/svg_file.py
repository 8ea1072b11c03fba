"""A plot of the page as a file of its own, for Markdown pages: with the page's colours inside."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_TEMPLATES = Path(__file__).parent / "templates"


def as_file(svg: str) -> str:
    """Return an inline SVG of the page as an SVG document on the page's paper; it follows the reader's light or dark scheme."""
    style = f"svg {{ background: var(--paper); }}\n{_style()}"
    head, _, body = svg.partition(">")
    namespace = "" if "xmlns=" in head else ' xmlns="http://www.w3.org/2000/svg"'
    return f"{head.replace('<svg', '<svg' + namespace, 1)}><style>{style}</style>{body}\n"


@cache
def _style() -> str:
    """Return the style sheet's colours, and its rules for plots."""
    css = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    colours = css[: css.index("* {")]
    rules = [line for line in css.splitlines() if re.match(r"(svg |\.s\d )", line)]
    return "\n".join([colours.strip(), *rules])
