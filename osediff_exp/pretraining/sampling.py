"""Deterministic many-step sampling from a backbone: how a prior is looked at."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from osediff_exp.diffusion import add_noise, guide, predict_x0
from osediff_exp.models.backbone import Backbone


@torch.no_grad()
def ddim_sample(
    backbone: Backbone,
    x_t: Tensor,
    prompt_embeds: Tensor,
    negative_embeds: Tensor,
    *,
    guidance: float,
    num_steps: int,
    start: int | None = None,
) -> Tensor:
    """Return latents after DDIM with eta = 0 (Song et al. 2021), from timestep ``start`` (default: the last) down to 0.

    Args:
        x_t: latents at timestep ``start``, (B, C, h, w), scaled.
        prompt_embeds, negative_embeds: (B, L, D); guidance runs between the two.
        guidance: 1 uses the prompt alone.
    """
    schedule = backbone.schedule
    timesteps = torch.linspace(start or schedule.num_steps - 1, 0, num_steps + 1).round().long().tolist()
    for t, t_next in pairwise(timesteps):
        x0, eps = _predict(backbone, x_t, t, prompt_embeds, negative_embeds, guidance)
        x_t = x0 if t_next == 0 else add_noise(x0, eps, schedule.abar(t_next))
    return x_t


def _predict(backbone: Backbone, x_t: Tensor, t: int, positive: Tensor, negative: Tensor, guidance: float) -> tuple[Tensor, Tensor]:
    """Return x0 and the eps that goes with it under guidance."""
    output = backbone.unet(x_t, t, positive).sample
    if guidance != 1:
        output = guide(output, backbone.unet(x_t, t, negative).sample, guidance)
    abar = backbone.schedule.abar(t)
    x0 = predict_x0(x_t, output, abar, backbone.schedule.prediction_type)
    return x0, (x_t - abar.sqrt().to(x_t) * x0) / (1 - abar).sqrt().to(x_t)
