"""Parameters and MACs as tables: by part, and beside the published ones (paper, Table 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from osediff_exp.reporting.figures import as_number
from osediff_exp.reporting.markdown import escape
from osediff_exp.reporting.published import SOURCE, published_complexity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import Console

Cells = list[str]
_PARTS = {"vae_encoder": "VAE encoder", "unet": "U-Net", "vae_decoder": "VAE decoder", "other": "other", "text_encoder": "text encoder"}
_SUMS = ("macs_g_merged", "macs_g_lora", "macs_g_products")
_OURS = "this project"
_PUBLISHED_SIZE = 512


@dataclass(frozen=True)
class FigureTable:
    """A table of texts: the first column names, the others are figures."""

    title: str
    header: Cells
    rows: list[Cells]

    def for_terminal(self) -> Table:
        """Return the table for rich, without its title (which would be broken to the table's width)."""
        table = Table(box=None, pad_edge=False)
        for place, heading in enumerate(self.header):
            table.add_column(Text(heading), justify="right" if place else "left")
        for row in self.rows:
            table.add_row(*(Text(cell, "bold" if row[0].startswith((_OURS, "in all")) else "") for cell in row))
        return table

    def markdown(self) -> str:
        """Return the table in Markdown under its title."""
        lines = [self.header, ["---", *["---:"] * (len(self.header) - 1)], *([escape(cell) for cell in row] for row in self.rows)]
        return "\n".join([f"## {escape(self.title)}", "", *(f"| {' | '.join(line)} |" for line in lines)])


@dataclass(frozen=True, kw_only=True)
class PublishedMethod:
    """A method's row in the published tables, and what is known of the difference in parameters and in MACs."""

    row: str
    params: str = ""
    macs: str = ""


@dataclass(frozen=True)
class ComplexityReport:
    """What task=complexity shows.

    Args:
        figures: of result.json (params_total, macs_g, ...).
        published: what ours is to be compared with; None where the backbone or the size is another than the published table's.
    """

    figures: Mapping[str, float | int | str | None]
    published: PublishedMethod | None = None

    @property
    def tables(self) -> list[FigureTable]:
        """The figures by part, and the published rows with ours below."""
        title = f"{self.figures['backbone']}: restoring one image of {self.figures['size']} px"
        published = f"Published ({SOURCE}, Table 2: one image of 512 px) and ours"
        return [
            FigureTable(title, ["part", "parameters", "LoRA parameters", "GMACs"], self._parts()),
            FigureTable(published, ["method", "steps", "GMACs", "parameters (M)", "trainable (M)"], [*_published(), self._ours()]),
        ]

    @property
    def notes(self) -> list[str]:
        """What the figures include, and what is known of the difference to the paper's."""
        return [*_SCOPE, *(_differences(self.figures, self.published) if self.published is not None else [])]

    def print(self, console: Console) -> None:
        """Show tables and notes."""
        for table in self.tables:
            console.print(Text(table.title, "bold"), table.for_terminal(), "", sep="\n")
        for note in self.notes:
            console.print(Text(f"- {note}"))

    def markdown(self) -> str:
        """Return the page complexity.md."""
        notes = "\n".join(f"- {escape(note)}" for note in self.notes)
        return "\n\n".join(["# Complexity", *(table.markdown() for table in self.tables), "## What is counted", notes]) + "\n"

    def _number(self, key: str) -> float:
        return as_number(self.figures.get(key)) or 0.0

    def _parts(self) -> list[Cells]:
        counted = [key.removeprefix("macs_g_") for key in self.figures if key.startswith("macs_g_") and key not in _SUMS]
        parts = [part for part in dict.fromkeys([*_PARTS, *counted]) if part != "text_encoder"] + ["text_encoder"]
        present = [part for part in parts if self._number(f"params_{part}") or self._number(f"macs_g_{part}")]
        rows = [
            [
                _PARTS.get(part, part.replace("_", " ")),
                *_counts(self._number(f"params_{part}"), self._number(f"params_lora_{part}")),
                _g(self._number(f"macs_g_{part}")),
            ]
            for part in present
        ]
        lora = sum(self._number(f"params_lora_{part}") for part in parts)
        networks = ["these, LoRA merged", *_counts(self._number("params_total") - lora), "", _g(self._number("macs_g_merged"))]
        beside = ["LoRA, not merged", *_counts(lora), "", _g(self._number("macs_g_lora"))]
        products = ["of these, attention's products", "", "", _g(self._number("macs_g_products"))]
        return [*rows, networks, products, beside, ["in all", *_counts(self._number("params_total")), "", _g(self._number("macs_g"))]]

    def _ours(self) -> Cells:
        millions = [self._number(key) / 1e6 for key in ("params_total", "params_trainable")]
        size = self.figures["size"]
        name = _OURS if size == _PUBLISHED_SIZE else f"{_OURS}, at {size} px"
        return [name, str(self.figures.get("sampling_steps", 1)), _g(self._number("macs_g")), f"{millions[0]:,.1f}", f"{millions[1]:.2f}"]


_SCOPE = (
    "Counted is what restoring uses, all steps of it: VAE, U-Net, text encoder, what the method adds, and LoRA; trainable is the share of "
    "the generator plus that of networks which only training uses (a score network).",
    "A MAC is one multiplication with its addition, in convolutions, matrix products and attention; LoRA costs nothing once it is merged.",
    "Attention's products are those of queries, keys and values; counters that ask each layer for its own share pass over them.",
)


def _differences(figures: Mapping[str, float | int | str | None], published: PublishedMethod) -> Iterable[str]:
    paper = next((row.figures for row in published_complexity() if row.method == published.row), None)
    if paper is None:
        return
    params = paper["params_m"] - (as_number(figures["params_total"]) or 0.0) / 1e6
    macs = paper["macs_g"] - (as_number(figures["macs_g"]) or 0.0)
    counted = f"The paper counts {paper['params_m']:,.0f} M parameters, {_more(params)} M {_side(params)} than these networks have."
    yield f"{counted} {published.params}"
    yield f"The paper's {paper['macs_g']:,.0f} GMACs are {_more(macs)} {_side(macs)} than ours. {published.macs}"


def _more(difference: float) -> str:
    return f"{abs(difference):,.1f}"


def _side(difference: float) -> str:
    return "more" if difference >= 0 else "fewer"


def _published() -> list[Cells]:
    rows = published_complexity()
    return [
        [
            row.method,
            str(row.steps),
            *(f"{row.figures[key]:,.{digits}f}" for key, digits in (("macs_g", 0), ("params_m", 0), ("trainable_m", 1))),
        ]
        for row in rows
    ]


def _counts(*numbers: float) -> Cells:
    return [f"{int(number):,}" if number else "-" for number in numbers]


def _g(macs: float) -> str:
    return f"{macs:,.1f}" if macs >= 1 else f"{macs:.3g}"
