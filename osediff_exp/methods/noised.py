"""What a denoising loss needs of a batch: clean latents, noise, timesteps, and words that some samples lose."""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor

from osediff_exp.errors import UserError
from osediff_exp.methods.batch import TrainingBatch
from osediff_exp.methods.pixel_controlled import PixelControlled
from osediff_exp.methods.sampler import Sampler
from osediff_exp.methods.text_dropping import drop_text
from osediff_exp.models.latents import posterior_of


class Noised(NamedTuple):
    """``z0`` (B, C, h, w), scaled, drawn from E's posterior of the ground truth; ``eps`` of its shape; ``t`` (B,); ``text`` (B, L, D)."""

    z0: Tensor
    eps: Tensor
    t: Tensor
    text: Tensor

    @classmethod
    def of(cls, batch: TrainingBatch, generator: PixelControlled, *, text_dropout: float) -> Self:
        """Draw the step's noise and timesteps, and take the words away from a share ``text_dropout`` of the samples."""
        z0 = drawn_latents(batch, generator)
        empty = batch.embed([""] * len(batch))
        return cls(
            z0=z0,
            eps=batch.noise("chain/eps", tuple(z0.shape[1:])),
            t=batch.timesteps("chain/t", 0, generator.schedule.num_steps),
            text=drop_text(batch.prompt_embeds, empty, dropped=batch.chance("chain/drop_text", text_dropout)),
        )


@torch.no_grad()
def drawn_latents(batch: TrainingBatch, generator: Sampler) -> Tensor:
    """Return scaled latents (B, C, h, w) of the ground truth, drawn from E's posterior."""
    posterior = posterior_of(generator.vae, batch.hq.to(next(generator.vae.parameters()).dtype))
    n = batch.noise("chain/posterior", tuple(posterior.mean.shape[1:]))
    return (posterior.mean.float() + posterior.std.float() * n) * generator.vae.config.scaling_factor


def check_probability(key: str, value: float) -> float:
    """Return ``value``; UserError where it is no probability."""
    if not 0 <= value <= 1:
        raise UserError(f"{key}={value} must lie in 0..1")
    return float(value)
