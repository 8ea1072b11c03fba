"""task=restore: photos of any size in, restored photos out."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from osediff_exp import __version__
from osediff_exp.checkpoints.named import checkpoint_path, is_embedded
from osediff_exp.errors import Incomplete, UserError, shown
from osediff_exp.restoration.finished import checkpoint_identity, fingerprint
from osediff_exp.restoration.folder import FolderRestoration, Outcome
from osediff_exp.restoration.jobs import left_alone, plan_jobs
from osediff_exp.restoration.numerics import choose_device
from osediff_exp.restoration.progress import FileProgress
from osediff_exp.restoration.restorer import MAX_SCALE, Restorer
from osediff_exp.runtime import machine, peak_memory_gib, prepare_process, quiet_libraries
from osediff_exp.tasks.loading import load_restorer, model_settings, prompt_identity, refuse_model_settings

Figures = dict[str, float | int | str | None]

FAILED = "failed.txt"
_DECIDES_NOTHING = ("device",)  # options of the restorer that change where, not what


def run(config: DictConfig, run_dir: Path) -> Figures:
    """Restore ``config.input`` into ``config.output``; return counts, times and where the pictures lie.

    Raises:
        UserError: there is nothing to restore, the output cannot be written, or the checkpoint cannot be loaded.
        Incomplete: some photos are not restored; ``failed.txt`` names each, with the reason.
    """
    quiet_libraries()
    prepare_process(seed=config.seed)
    if not 1 <= config.upscale <= MAX_SCALE:
        raise UserError(f"upscale={config.upscale} is not possible: give a whole number from 1 to {MAX_SCALE}")
    output = Path(config.output).expanduser() if config.output else run_dir / "restored"
    refuse_model_settings(config, [config.checkpoint])
    source = Path(config.input).expanduser()
    jobs, clashes = plan_jobs(source, output, config.format)
    others = left_alone(source, output)  # before the outputs lie there
    work = FolderRestoration(output=output, scale=config.upscale, settings=_settings(config), overwrite=config.overwrite)
    console = Console()
    if is_embedded(config.checkpoint):
        console.print(f"checkpoint={config.checkpoint}: the package's own restorer", highlight=False, soft_wrap=True)
    loaded: list[Restorer] = []

    def load() -> Restorer:
        loaded.append(load_restorer(config, config.checkpoint))
        return loaded[0]

    with FileProgress(total=len(jobs), label="restoring", console=console) as progress:
        outcome = work(jobs, load, progress)
    outcome.failures[:0] = clashes
    figures = _figures(config, outcome, output)
    figures["color_fix"] = loaded[0].color_fix if loaded else config.restorer.color_fix  # null: nothing was left to restore
    figures["num_left_alone"] = len(others)
    _print(console, outcome, output, others)
    _complain(outcome, figures, run_dir)
    return figures


def _settings(config: DictConfig) -> str:
    """Return the fingerprint of what decides, besides the photo, how an output looks."""
    options: Any = OmegaConf.to_container(config.restorer, resolve=True)
    decisive = {key: value for key, value in options.items() if key not in _DECIDES_NOTHING}
    checkpoint = checkpoint_identity(checkpoint_path(config.checkpoint))
    return fingerprint(
        decisive, model_settings(config), {"upscale": config.upscale, "version": __version__}, checkpoint, *prompt_identity(config)
    )


def _figures(config: DictConfig, outcome: Outcome, output: Path) -> Figures:
    seconds, device = outcome.seconds, str(choose_device(config.restorer.device))
    return {
        "num_images": len(seconds),
        "num_skipped": outcome.num_skipped,
        "num_failed": len(outcome.failures),
        "seconds_per_image": statistics.median(seconds) if seconds else None,
        "megapixels_per_second": sum(outcome.megapixels) / sum(seconds) if seconds else None,
        "peak_memory_gib": peak_memory_gib(device),
        "machine": machine(device),
        "checkpoint": str(config.checkpoint),
        "upscale": config.upscale,
        "decoder": config.restorer.decoder,
        "output": str(output),
    }


def _print(console: Console, outcome: Outcome, output: Path, others: list[Path]) -> None:
    if others:
        named = ", ".join(shown(path.name) for path in others[:3]) + (", ..." if len(others) > 3 else "")
        console.print(
            f"{len(others)} {'file' if len(others) == 1 else 'files'} of other kinds left alone: {named}",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
    counts = [f"{len(outcome.seconds)} restored"]
    counts += [f"{outcome.num_skipped} finished before"] if outcome.num_skipped else []
    counts += [f"{len(outcome.failures)} not restored"] if outcome.failures else []
    console.print(f"{', '.join(counts)}: {output}", highlight=False, soft_wrap=True)


def _complain(outcome: Outcome, figures: Figures, run_dir: Path) -> None:
    """Raise Incomplete unless every photo is restored."""
    report = run_dir / FAILED
    report.unlink(missing_ok=True)
    if outcome.failures:
        report.write_text("".join(f"{line}\n" for line in outcome.failures), encoding="utf-8")
    if outcome.stopped:
        remedy = "make room, or give another output; run the same command again and it goes on from here"
        raise Incomplete(f"{outcome.stopped}: {remedy}", figures)
    if outcome.failures:
        others = f" (and {len(outcome.failures) - 1} more)" if len(outcome.failures) > 1 else ""
        raise Incomplete(f"{outcome.failures[0]}{others}; all in {report}", figures)
