"""How long a training has taken, over all the calls that it took."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl


class TrainingTime(pl.Callback):
    """Count the seconds between a training's set-up and its end, validations included; checkpoints carry them along.

    What a killed call did after its last checkpoint does not count: it is done again.

    Args:
        before: seconds that the steps behind the checkpoint took from which the training goes on.
    """

    def __init__(self, *, before: float = 0.0) -> None:
        self.before = before
        self._since: float | None = None
        self._counted = before

    @property
    def seconds(self) -> float:
        """Seconds up to now, those of earlier calls included."""
        return self._counted + (time.perf_counter() - self._since if self._since is not None else 0.0)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._since = time.perf_counter()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._counted, self._since = self.seconds, None

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["train_seconds"] = self.seconds
