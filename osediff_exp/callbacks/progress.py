"""Live progress: a rich bar on a terminal, a line now and then elsewhere (a log file, CI, a cluster)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn

from osediff_exp.bars import UNBOUNDED_STEPS, Pace, bar

_SHOWN = {
    "train/loss": "loss",
    "train/l1": "L1",
    "train/vsd_critic": "score",
    "val/psnr": "PSNR-Y",
    "val/st_lpips": "ST-LPIPS",
    "val/loss": "val",
}


class LiveProgress(pl.Callback):
    """Show optimizer steps done, time left and the latest figures; in a validation the pictures done, and the steps within one.

    Args:
        label: text before the bar, e.g. the arm's name.
        seconds_between_lines: how often a line is printed where there is no terminal.
    """

    def __init__(self, *, label: str | None = None, seconds_between_lines: float = 15.0) -> None:
        self.label = label
        self.seconds_between_lines = seconds_between_lines
        self.console = Console()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_line = 0.0
        self._pace = Pace()
        self._validated, self._to_validate = 0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last_line, self._pace = time.monotonic(), Pace(_step(trainer))
        if not trainer.is_global_zero or not self.console.is_terminal:
            return
        self._bar = bar(self.console, TextColumn("{task.fields[figures]}"))
        self._bar.start()
        self._task = self._bar.add_task(self.label or "training", total=_total(trainer), completed=_step(trainer), figures="")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not trainer.is_global_zero:
            return
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=_step(trainer), figures=_figures(trainer))
        elif time.monotonic() - self._last_line >= self.seconds_between_lines:
            self._last_line = time.monotonic()
            name = f"{self.label}: " if self.label else ""
            step, total = _step(trainer), _total(trainer)
            pace, of = self._pace(step, total), f"/{total}" if total else ""
            print(f"{name}step {step}{of}  {pace}  {_figures(trainer)}", flush=True)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validated, self._to_validate = 0, _num_to_validate(trainer)
        if trainer.is_global_zero:
            _let_tell(pl_module, self._tell_steps)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.is_global_zero:
            self._validated = min(self._validated + len(batch["index"]), self._to_validate)
            self._tell_validation("")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _let_tell(pl_module, None)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, figures=_figures(trainer))

    def _tell_steps(self, done: int, steps: int) -> None:
        if steps > 1:
            self._tell_validation(f", step {done}/{steps}")

    def _tell_validation(self, more: str) -> None:
        said = f"validating {self._validated}/{self._to_validate}{more}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, figures=said)
        elif not self.console.is_terminal and time.monotonic() - self._last_line >= self.seconds_between_lines:
            self._last_line = time.monotonic()
            print(f"{self.label}: {said}" if self.label else said, flush=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _step(trainer: pl.Trainer) -> int:
    """Optimizer steps of the generator; with several optimizers Lightning's own count is a multiple."""
    return int(getattr(trainer.lightning_module, "steps_taken", trainer.global_step))


def _total(trainer: pl.Trainer) -> int | None:
    total = int(getattr(trainer.lightning_module, "max_steps", trainer.max_steps))
    return total if 0 < total < UNBOUNDED_STEPS else None


def _num_to_validate(trainer: pl.Trainer) -> int:
    """Return how many pictures this rank validates."""
    given: Any = trainer.val_dataloaders
    return sum(len(loader.dataset) for loader in (given if isinstance(given, list) else [given]) if loader is not None)


def _let_tell(module: Any, on_step: Callable[[int, int], None] | None) -> None:
    """Let a generator of many steps call ``on_step`` as it samples."""
    generator: Any = getattr(module, "generator", None)
    if hasattr(generator, "on_step"):
        generator.on_step = on_step


def _figures(trainer: pl.Trainer) -> str:
    metrics = getattr(trainer.lightning_module, "latest", None) or trainer.callback_metrics
    return "  ".join(f"{label} {float(metrics[key]):.4g}" for key, label in _SHOWN.items() if key in metrics)
