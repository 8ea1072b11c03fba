"""UniPC, through diffusers' scheduler."""

from __future__ import annotations

import warnings
from typing import final

import torch
from diffusers import UniPCMultistepScheduler
from torch import Tensor

from osediff_exp.errors import UserError
from osediff_exp.methods.chain.denoising import Denoise
from osediff_exp.methods.chain.sampler import Progress, Sampler
from osediff_exp.models.generator_base import Noise
from osediff_exp.models.noise_schedule import NoiseSchedule


@final
class UniPCSampler(Sampler):
    """The multistep predictor-corrector of Zhao et al. (NeurIPS 2023), of order 2; it draws no noise.

    The chain is the schedule cut off after ``start``; its timesteps are evenly spaced over 0..start, the last (0) left out.
    """

    @torch.no_grad()
    def sample(
        self,
        denoise: Denoise,
        z: Tensor,
        *,
        schedule: NoiseSchedule,
        steps: int,
        noise: Noise,
        start: int | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        scheduler = cut_scheduler(schedule, start=schedule.num_steps - 1 if start is None else start, steps=steps)
        z = z.float()
        for done, t in enumerate(scheduler.timesteps, 1):
            output = denoise(z, torch.full((len(z),), int(t), device=z.device)).float()
            z = scheduler.step(output, t, z, return_dict=False)[0]
            if progress is not None:
                progress(done, steps)
        return z


def cut_scheduler(schedule: NoiseSchedule, *, start: int, steps: int) -> UniPCMultistepScheduler:
    """Return diffusers' scheduler over timesteps 0..start of ``schedule``, set to ``steps``; one serves one chain."""
    if not 1 <= steps <= start:
        raise UserError(f"steps={steps} does not fit a UniPC chain that starts at timestep {start}: use 1 to {start}")
    with torch.device("cpu"), warnings.catch_warnings():  # figures need values, also where networks are built on the meta device
        warnings.simplefilter("ignore", DeprecationWarning)  # diffusers makes NumPy arrays of tensors in a way that NumPy 2 will not know
        abar = torch.cat([torch.ones(1, dtype=torch.float64), schedule.abar(torch.arange(start + 1))])
        scheduler = UniPCMultistepScheduler(
            num_train_timesteps=start + 1,
            trained_betas=(1 - abar[1:] / abar[:-1]).numpy(),
            prediction_type=schedule.prediction_type,
            timestep_spacing="linspace",
            final_sigmas_type="zero",
        )
        scheduler.set_timesteps(steps)
    return scheduler
