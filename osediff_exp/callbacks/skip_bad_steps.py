"""Skipping bad steps of a module whose optimizer Lightning steps: the pretraining stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from osediff_exp.bad_steps import BadSteps


class SkipBadSteps(pl.Callback):
    """Leave out each step whose loss or gradient is not finite, and end the training after ``limit`` of them in a row.

    Args:
        limit: see :class:`osediff_exp.bad_steps.BadSteps`.
        folder: where the batch goes that ended a training.
    """

    def __init__(self, *, limit: int, folder: Path) -> None:
        self.bad_steps = BadSteps(limit=limit)
        self.folder = folder
        self._batch: dict[str, Any] = {}

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch = batch

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        self.bad_steps.see(loss, self._batch)

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer) -> None:
        gradients = [weight.grad for group in optimizer.param_groups for weight in group["params"] if weight.grad is not None]
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        may = self.bad_steps.judge(
            torch.nn.utils.get_total_norm(gradients).reshape(1),
            gather=(lambda flags: torch.as_tensor(pl_module.all_gather(flags))) if trainer.world_size > 1 else None,
            scale=1.0 if scaler is None else scaler.get_scale(),
        )
        if not may:
            optimizer.zero_grad(set_to_none=True)  # an optimizer passes by what has no gradient: no step, no decay, no averages

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.bad_steps.skipped:
            pl_module.log("train/skipped_updates", float(self.bad_steps.skipped), batch_size=1)
        self.bad_steps.finish_step(trainer.global_step, self.folder, rank=trainer.global_rank)

    def state_dict(self) -> dict[str, Any]:
        return dict(self.bad_steps.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.bad_steps.load_state_dict(state_dict)
