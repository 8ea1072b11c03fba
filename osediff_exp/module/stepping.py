"""Stepping several optimizers after one backward pass, with the settings that they were made with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer


@dataclass(frozen=True)
class Trained:
    """One player of a step: its name in the log, what trains, and what steps it."""

    name: str
    parameters: list[nn.Parameter]
    optimizer: LightningOptimizer


_KERNEL = frozenset({"fused", "foreach", "capturable"})


def settings_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return the settings (lr, betas, weight_decay, ...) of each of the optimizer's groups of parameters."""
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


def configure_again(optimizer: Optimizer, settings: Sequence[dict[str, Any]]) -> None:
    """Give the optimizer's groups their ``settings`` back: loading a checkpoint has set those of the training that wrote it.

    Its moments stay: a resumed training goes on from them with what is configured now. How a step is computed stays the checkpoint's too:
    the moments lie where that kernel wants them.
    """
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update({key: value for key, value in own.items() if key not in _KERNEL})


def all_finite_norms(norms: Tensor) -> bool:
    """Allow an update where no gradient norm (P,) is NaN or infinite."""
    return bool(norms.isfinite().all())


def step_together(
    players: Sequence[Trained], *, clip_norm: float, scaler: GradScaler | None, may_step: Callable[[Tensor], bool] = all_finite_norms
) -> dict[str, Tensor]:
    """Clip each player's gradients, step and reset its optimizer; return gradient norms before clipping, and learning rates.

    Players step together or not at all: one that goes on while another's gradients are not finite would meet, in the next step, an opponent
    that stood still.

    Under fp16 all gradients of the backward pass are multiplied by the one scaler's factor, so the factor may change only after the last
    step. Lightning's ``optimizer.step()`` changes it after each: the next player's gradients would be divided by another factor than
    theirs whenever it grows or, after an overflow, shrinks. Gradients are unscaled before they are clipped.

    Args:
        clip_norm: largest norm of a player's gradients; 0: no clipping.
        scaler: of fp16 training, None otherwise.
        may_step: tells, of the norms (P,), whether the update may be made.
    """
    logs = {}
    for player in players:
        if scaler is not None:
            scaler.unscale_(player.optimizer.optimizer)
        logs[f"train/grad_norm/{player.name}"] = nn.utils.clip_grad_norm_(player.parameters, clip_norm or float("inf"))
        logs[f"train/lr/{player.name}"] = torch.tensor(player.optimizer.param_groups[0]["lr"])
    may = may_step(torch.stack([logs[f"train/grad_norm/{player.name}"] for player in players]))
    for player in players:
        if may and scaler is not None:
            scaler.step(player.optimizer.optimizer)
        elif may:
            player.optimizer.step()
        player.optimizer.zero_grad()
    if scaler is not None:
        scaler.update()
    return logs
