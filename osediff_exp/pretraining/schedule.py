"""Learning-rate schedule of the pretraining stages."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR


def cosine_with_warmup(step: int, *, warmup_steps: int, max_steps: int, floor: float = 0.01) -> float:
    """Return the learning-rate factor at ``step``: linear rise over ``warmup_steps``, then a half cosine from 1 to ``floor``."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = min(1.0, (step - warmup_steps) / max(1, max_steps - warmup_steps))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def adamw_with_cosine(
    module: nn.Module, *, learning_rate: float, weight_decay: float, warmup_steps: int, max_steps: int
) -> tuple[AdamW, LambdaLR]:
    """Return AdamW over the trainable parameters of ``module`` and its per-step cosine schedule."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = AdamW(parameters, lr=learning_rate, betas=(0.9, 0.99), weight_decay=weight_decay)
    return optimizer, LambdaLR(optimizer, lambda step: cosine_with_warmup(step, warmup_steps=warmup_steps, max_steps=max_steps))
