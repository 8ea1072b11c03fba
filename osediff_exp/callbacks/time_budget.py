"""A training that may take so many minutes of steps."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl


class TimeBudget(pl.Callback):
    """Let one optimizer step follow when the budget has run out, as the last one: it is logged, saved and validated.

    What counts is the time in steps, from a batch's arrival to the update, over all the calls that a training takes. Validations,
    checkpoints and the wait for data do not: they depend on the metrics, the method's sampling steps and the disk, not on what is trained.
    With several processes the slowest decides.

    Args:
        minutes: the budget; None: none, only counted.
        before: seconds in steps behind the checkpoint from which the training goes on.
    """

    def __init__(self, *, minutes: float | None, before: float = 0.0) -> None:
        self.budget = None if minutes is None else 60.0 * minutes
        self.seconds = before
        self._since = 0.0

    @property
    def spent(self) -> bool:
        """Whether nothing of the budget is left."""
        return self.budget is not None and self.seconds >= self.budget

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        # Known before the step, not behind it: the last step's figures are logged and its state is saved because it is the last.
        if self.budget is not None and pl_module._micro_batch == 0 and trainer.strategy.reduce_boolean_decision(self.spent, all=False):
            pl_module.max_steps = pl_module.steps_taken + 1
        self._since = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seconds += time.perf_counter() - self._since

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["step_seconds"] = self.seconds
