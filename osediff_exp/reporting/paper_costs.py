"""What the arms cost beside what the paper's methods cost (its Table 2), for the arms that an experiment names as one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from osediff_exp.reporting.figures import as_number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from osediff_exp.reporting.comparison import Comparison


@dataclass(frozen=True)
class _Column:
    """A figure of a result, and the one of Table 2 that it corresponds to, both written in the table's unit."""

    title: str
    measured: str
    printed: str
    write: Callable[[float], str]


def _millions(number: float) -> str:
    return f"{number / 1e6:,.1f}"


_COLUMNS = (
    _Column("Sampling steps", "sampling_steps", "steps", lambda number: f"{number:.0f}"),
    _Column("Seconds per picture", "restore_seconds_per_image", "time_s_a100", lambda number: f"{number:.3g}"),
    _Column("GMACs at 512 px", "macs_g", "macs_g", lambda number: f"{number:,.0f}"),
    _Column("Parameters (M)", "params_total", "params_m", _millions),
    _Column("Trained parameters (M)", "params_trainable", "trainable_m", _millions),
)
ABOUT = (
    "Published: one picture of 512 px on an A100, with each method's released model. Seconds here: the validation's pictures on this "
    "machine, in the steps that they were sampled in; GMACs: all of the method's own steps, both branches of guidance, VAE, control net "
    "and text encoder. Trained parameters include networks that only training uses. task=complexity says what explains a difference on "
    "the paper's backbone."
)


def paper_costs(comparison: Comparison) -> tuple[list[str], list[tuple[str, list[tuple[str, str]]]]]:
    """Return headings and, per arm that stands in Table 2, (label, [(measured, published)]); both empty where none does."""
    lines = []
    for row in comparison.arms:
        published = comparison.published.get(row.label)
        if published is not None and published.cost is not None:
            printed = {**published.cost.printed, "steps": str(published.cost.steps)}
            pairs = [(_written(row.figures, one), printed.get(one.printed, "-")) for one in _COLUMNS]
            lines.append((row.label, pairs))
    return [one.title for one in _COLUMNS] if lines else [], lines


def _written(figures: Mapping[str, Any], column: _Column) -> str:
    number, own = as_number(figures.get(column.measured)), as_number(figures.get(f"own_{column.measured}"))
    if number is None:
        return "-"
    return column.write(number) + ("" if own in (None, number) else f" of its own {column.write(own)}")
