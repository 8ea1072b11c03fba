"""Remake the comparison of a sweep from its run folders, at any time: ``osediff-exp task=report runs=SWEEP_FOLDER``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from rich.console import Console
from rich.text import Text

from osediff_exp.errors import Incomplete, UserError, nearest
from osediff_exp.reporting.comparison import Comparison, compare
from osediff_exp.reporting.hydra_callback import settings_of
from osediff_exp.reporting.terminal import print_comparison
from osediff_exp.reporting.writing import write_comparison

if TYPE_CHECKING:
    from omegaconf import DictConfig

_TARGETS = ("html", "wandb", "all")


def run(config: DictConfig, run_dir: Path) -> dict[str, Any]:
    """Write and print the comparison of ``config.runs``; return how many arms there are and where the report lies.

    The files of one folder's report are written into it, so that they lie beside the runs that they show; those of several folders, and
    of an evaluation, which has tables of these names itself, into ``run_dir``.

    Raises:
        UserError: ``config.runs`` is missing or holds nothing to compare, ``config.target`` is unknown, or W&B knows none of the runs.
        Incomplete: the W&B report should have been published (``logger.wandb.mode=online``) and could not be.
    """
    folders = _folders(config)
    if config.target not in _TARGETS:
        raise UserError(f"target={config.target} is unknown; give html, wandb or all.{nearest(str(config.target), _TARGETS)}")
    html = config.target != "wandb"
    with Console(stderr=True).status("comparing the runs"):  # on a terminal; minutes, where there are many pictures
        comparison = (write_comparison if html else compare)(folders, settings_of(config), run_dir)
    if html:
        print_comparison(comparison, Console())
    figures = _figures(comparison) | ({"report": str(comparison.page)} if html else {})
    return _wandb(comparison, config, figures) if config.target != "html" else figures


def _folders(config: DictConfig) -> list[Path]:
    runs = OmegaConf.select(config, "runs", throw_on_missing=False)
    if not runs:
        raise UserError("runs is not set; say which sweep to report: runs=PATH_OF_THE_SWEEP_FOLDER")
    paths = list(runs) if OmegaConf.is_list(runs) else [runs]
    wrong = next((path for path in paths if not isinstance(path, str)), None)
    if wrong is not None:
        raise UserError(f"runs must be a folder or a list of folders, but holds '{wrong}': write runs=PATH or runs=[PATH,PATH]")
    return [Path(path).expanduser() for path in paths]


def _figures(comparison: Comparison) -> dict[str, Any]:
    count = Counter(row.status for row in comparison.arms)
    counts = {status: count[status] for status in ("done", "partial", "failed", "unfinished")}
    return {"task": "report", "arms": len(comparison.arms), **counts, "runs_never_started": len(comparison.never_started)}


def _wandb(comparison: Comparison, config: DictConfig, figures: dict[str, Any]) -> dict[str, Any]:
    """Write the W&B report and say where it is, or what is left to do; return the figures with both."""
    from osediff_exp.callbacks.wandb_record import chosen_mode
    from osediff_exp.tasks.wandb_report.publishing import write_wandb_report

    wandb, console = config.logger.wandb, Console()
    online = chosen_mode(wandb.mode) == "online"
    written = write_wandb_report(comparison, entity=wandb.entity, online=online, patience=wandb.finish_timeout)
    console.print(Text(f"W&B report: {written.url or written.path}"), soft_wrap=True)
    if written.commands:
        why = f" ({written.fault})" if written.fault else ""
        console.print(Text("\n".join([f"To publish it{why}, run on a machine that reaches W&B:", *written.commands])), soft_wrap=True)
    figures |= {"wandb_report": written.url, "wandb_report_file": str(written.path)}
    if written.fault and wandb.mode == "online":
        raise Incomplete(f"the W&B report is not published ({written.fault}): {written.path} holds it and the commands", figures)
    return figures
