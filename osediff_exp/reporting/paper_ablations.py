"""Published values beside measured ones: rows of the paper's tables, named by an experiment ("T3/GAN", "T1/RealSR/StableSR")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from osediff_exp.errors import nearest
from osediff_exp.reporting.figures import as_number
from osediff_exp.reporting.published import SOURCE, PublishedRow, published_complexity, published_rows, published_sets, read_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TEXTS = ("table", "row", "dataset", "note")


@dataclass(frozen=True)
class Published:
    """What was published for an arm: its name there, the source, the figures by metric key, as printed there too, and a remark.

    ``cost`` is the method's row in Table 2, where the arm is one of the paper's methods.
    """

    name: str
    source: str
    figures: Mapping[str, float]
    printed: Mapping[str, str]
    note: str = ""
    cost: PublishedRow | None = None

    def show(self, key: str) -> str:
        """Write a figure with the digits that were printed; "-" where there is none."""
        return self.printed.get(key, "-")

    @property
    def origin(self) -> str:
        """The source and the remark."""
        return "; ".join(filter(None, [self.source, self.note]))


def published_for(labels: Sequence[str], wanted: Mapping[str, Any]) -> tuple[dict[str, Published], list[str]]:
    """Return arm label -> published row for the entries of ``report.published``, and one line per entry that fits nothing."""
    known = _ablation_rows() | _method_rows()
    found: dict[str, Published] = {}
    notes = []
    for label, entry in wanted.items():
        row = _inline(entry) if isinstance(entry, dict) else known.get(str(entry))
        if label not in labels:
            notes.append(f"report.published: '{label}' is the label of no arm.{nearest(label, labels)}")
        elif row is None:
            notes.append(f"report.published: there is no row '{entry}' in the paper's tables.{nearest(str(entry), known)}")
        else:
            found[label] = row
    return found, notes


def _ablation_rows() -> dict[str, Published]:
    """Return Tables 3 to 7: "T3/GAN"."""
    rows = {}
    for row in read_table("paper_ablations.csv"):
        printed = {key: value for key, value in row.items() if key not in _TEXTS and value}
        figures = {key: float(value) for key, value in printed.items()}
        source = f"{SOURCE}, Table {row['table'].removeprefix('T')}, {row['dataset']}"
        rows[f"{row['table']}/{row['row']}"] = Published(row["row"], source, figures, printed, row["note"])
    return rows


def _steps(number: int) -> str:
    return "1 step" if number == 1 else f"{number} steps"


def _method_rows() -> dict[str, Published]:
    """Return Table 1, with Table 2 beside it: "T1/RealSR/StableSR"."""
    costs = {row.method: row for row in published_complexity()}
    return {
        f"T1/{dataset}/{row.method}": Published(
            row.method, f"{SOURCE}, Table 1, {dataset}", row.figures, row.printed, _steps(row.steps), costs.get(row.method)
        )
        for dataset in published_sets()
        for row in published_rows(dataset)
    }


def _inline(entry: Mapping[str, Any]) -> Published:
    figures = {str(key): number for key, value in entry.items() if (number := as_number(value)) is not None}
    printed = {key: str(entry[key]) for key in figures}
    return Published(str(entry.get("name") or "published"), str(entry.get("source") or "given by the experiment"), figures, printed)
