"""An evaluation of several restorers as one run for each: a report shows them side by side, whichever the command named first."""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from osediff_exp.reporting.figures import as_number
from osediff_exp.reporting.run_tables import current, read_per_image
from osediff_exp.reporting.runs import output_pictures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from osediff_exp.reporting.runs import Run, Status

BICUBIC = "bicubic"
_SECONDS = "restore_seconds"  # every restorer has them, also one that failed
# Numbers of the evaluation as a whole; any other number, and these texts, are the first restorer's own.
_OF_ALL = ("num_images", "num_problems", "num_failed", "metrics_seconds", "peak_memory_gib", "seconds")
_OWN_LOSS = "lost_by_restorer"
_OF_FIRST = ("restorer", "method", "color_fix", "checkpoint", "decoder", "training", "originals", _OWN_LOSS)
BARE_KEYS = frozenset({*_OF_ALL, *_OF_FIRST, _SECONDS, "sampling_steps", "training_seed", "not_finite"})
"""Keys of an evaluation's result beside the metrics': the label of a restorer that begins one of them would take it for its own."""


def by_restorer(run: Run) -> list[Run]:
    """Return the run once for each restorer of an evaluation, with that one's figures and pictures; any other run as it is.

    Bicubic enlargement is the reference of them all and takes part by itself only where it was evaluated alone.
    """
    first = str(run.result.get("restorer") or "")
    if not first:
        return [run]
    labels = list(dict.fromkeys([first, *_labels(run.folder / "per_image.csv"), *_with_seconds(run.result)]))
    own = [label for label in labels if label != BICUBIC] or labels
    if own == [first] and set(labels) <= {first, BICUBIC}:
        return [run]
    figures = _by_label(run.result, first, labels)
    return [_of(run, label, figures, several=len(own) > 1) for label in own]


def _of(run: Run, label: str, figures: Mapping[str, dict[str, Any]], *, several: bool) -> Run:
    shared = {key: value for key, value in run.result.items() if key in figures[""]}
    bicubic = {f"{BICUBIC}_{key}": value for key, value in figures.get(BICUBIC, {}).items() if as_number(value) is not None}
    status, error = _how_it_ended(run, str(figures[label].get(_OWN_LOSS) or ""))
    return replace(
        run,
        status=status,
        error=error,
        restorer=label if several else "",
        result=shared | {"restorer": label} | figures[label] | bicubic,
        per_image=read_per_image(run.folder / "per_image.csv", label),
        pictures=run.pictures | {"output": output_pictures(run.folder, label)},
    )


def _how_it_ended(run: Run, own: str) -> tuple[Status, str]:
    """Return status and error of a restorer that lost ``own``: what another one lost is not its."""
    if run.status != "partial" or "lost" not in run.result:  # the latter: written before evaluations said who lost what
        return run.status, run.error
    lost = "; ".join(text for text in (own, str(run.result["lost"] or "")) if text)
    return ("failed" if own.startswith("failed: ") else "partial" if lost else "done"), lost


def _labels(path: Path) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            return list(dict.fromkeys(label for row in csv.DictReader(file) if (label := row.get("restorer"))))
    except (OSError, csv.Error):
        return []


def _with_seconds(result: Mapping[str, Any]) -> list[str]:
    return [key.removesuffix(f"_{_SECONDS}") for key in result if key.endswith(f"_{_SECONDS}")]


def _by_label(result: Mapping[str, Any], first: str, labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return label -> its figures by their bare names, and "" -> those of the evaluation as a whole.

    The first one's stand bare in ``result``, the others' as ``LABEL_psnr``; where labels begin alike, the longest that fits has the figure.
    """
    others = sorted((label for label in labels if label != first), key=len, reverse=True)
    found: dict[str, dict[str, Any]] = {label: {} for label in ["", *labels]}
    for key, value in result.items():
        owner = next((label for label in others if key.startswith(f"{label}_")), None)
        if owner is not None:
            found[owner][current(key.removeprefix(f"{owner}_"))] = value
        else:
            of_first = key in _OF_FIRST or (as_number(value) is not None and key not in _OF_ALL)
            found[first if of_first else ""][key] = value
    return found
