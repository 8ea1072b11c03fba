"""Exponential moving averages of weights."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from osediff_exp.bad_steps import all_finite
from osediff_exp.errors import UserError


def warmed_up_decay(decay: float, num_updates: int) -> float:
    """Return min(decay, (1 + n) / (10 + n)): a young average forgets its start quickly."""
    return min(decay, (1 + num_updates) / (10 + num_updates))


class GeneratorEMA(pl.Callback):
    """Average the generator's trainable weights; validation, pictures and figures are those of the average.

    Args:
        decay: of the average per optimizer step; None turns the callback into nothing.
    """

    def __init__(self, *, decay: float | None) -> None:
        if decay is not None and not 0 <= decay < 1:
            raise UserError(f"trainer.ema_decay={decay} must lie in [0, 1); null averages nothing")
        self.decay = decay
        self.num_updates = 0
        self.average: dict[str, Tensor] = {}
        self._live: dict[str, Tensor] = {}
        self._last_step = -1

    def _weights(self, module: Any) -> dict[str, Tensor]:
        return {name: weight.data for name, weight in module.generator.named_parameters() if weight.requires_grad}

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self.decay is None:
            return
        if not self.average:
            self.average = {name: weight.clone() for name, weight in self._weights(pl_module).items()}
        self.average = {name: weight.to(pl_module.device) for name, weight in self.average.items()}
        self._last_step = pl_module.steps_taken

    @torch.no_grad()
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.decay is None or pl_module.steps_taken == self._last_step:
            return
        self._last_step = pl_module.steps_taken
        weights = self._weights(pl_module)
        if not all_finite(weights.values()):  # an average that took one such value would never lose it
            return
        self.num_updates += 1
        rate = 1 - warmed_up_decay(self.decay, self.num_updates)
        for name, weight in weights.items():
            self.average[name].lerp_(weight, rate)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self.average and not self._live:
            weights = self._weights(pl_module)
            self._live = {name: weight.clone() for name, weight in weights.items()}
            for name, weight in weights.items():
                weight.copy_(self.average[name])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        for name, weight in self._weights(pl_module).items():
            if name in self._live:
                weight.copy_(self._live[name])
        self._live = {}

    def state_dict(self) -> dict[str, Any]:
        return {"num_updates": self.num_updates, "average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.decay is not None:  # else a run that averages nothing would validate a stale average
            self.num_updates, self.average = state_dict["num_updates"], state_dict["average"]
