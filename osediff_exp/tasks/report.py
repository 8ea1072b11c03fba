"""Remake the comparison of a sweep from its run folders, at any time: ``osediff-exp task=report runs=SWEEP_FOLDER``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from rich.console import Console

from osediff_exp.errors import UserError
from osediff_exp.reporting.comparison import write_comparison
from osediff_exp.reporting.hydra_callback import settings_of
from osediff_exp.reporting.terminal import print_comparison

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(config: DictConfig, run_dir: Path) -> dict[str, Any]:
    """Write and print the comparison of ``config.runs``; return how many arms there are and where the report lies.

    The files are written into the sweep folder, not into ``run_dir``, so that they lie beside the runs that they show.

    Raises:
        UserError: ``config.runs`` is missing or no sweep folder.
    """
    runs = OmegaConf.select(config, "runs", throw_on_missing=False)
    if not runs:
        raise UserError("runs is not set; say which sweep to report: runs=PATH_OF_THE_SWEEP_FOLDER")
    if not isinstance(runs, str):
        raise UserError(f"runs must be one sweep folder, got '{runs}'; give the folder that holds multirun.yaml")
    comparison = write_comparison(Path(runs).expanduser(), settings_of(config))
    print_comparison(comparison, Console())
    count = Counter(row.status for row in comparison.arms)
    return {
        "task": "report",
        "arms": len(comparison.arms),
        **{status: count[status] for status in ("done", "failed", "unfinished")},
        "report": str(comparison.page),
    }
