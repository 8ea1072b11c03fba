"""Learning-rate schedule of the pretraining stages."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytorch_lightning as pl
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR


def cosine_with_warmup(step: int, *, warmup_steps: int, max_steps: int, floor: float = 0.01) -> float:
    """Return the learning-rate factor at ``step``: linear rise over ``warmup_steps``, then a half cosine from 1 to ``floor``."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = min(1.0, (step - warmup_steps) / max(1, max_steps - warmup_steps))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


class CosineTraining(pl.LightningModule):
    """Train what is trainable with AdamW, at a rate that rises over ``warmup_steps`` and falls to ``max_steps`` as a cosine."""

    def __init__(self, *, learning_rate: float, weight_decay: float, warmup_steps: int, max_steps: int) -> None:
        super().__init__()
        self.learning_rate, self.weight_decay, self.warmup_steps, self.max_steps = learning_rate, weight_decay, warmup_steps, max_steps

    def configure_optimizers(self) -> Any:
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = AdamW(parameters, lr=self.learning_rate, betas=(0.9, 0.99), weight_decay=self.weight_decay)
        factor = partial(cosine_with_warmup, warmup_steps=self.warmup_steps, max_steps=self.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}
