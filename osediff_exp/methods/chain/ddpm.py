"""Respaced ancestral sampling (DDPM) and its deterministic relative (DDIM)."""

from __future__ import annotations

from abc import abstractmethod
from itertools import pairwise
from typing import final

import torch
from torch import Tensor

from osediff_exp.diffusion import predict_x0
from osediff_exp.errors import UserError
from osediff_exp.methods.chain.denoising import Denoise, implied_eps
from osediff_exp.methods.chain.sampler import Progress, Sampler
from osediff_exp.methods.chain.spacing import Spacing, spaced_timesteps
from osediff_exp.models.generator_base import Noise
from osediff_exp.models.noise_schedule import NoiseSchedule


def posterior(z_t: Tensor, x0: Tensor, abar_t: Tensor, abar_s: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of q(z_s | z_t, x0), s < t (Ho et al. 2020, equations 6 and 7, between any two timesteps).

    With beta = 1 - abar_t / abar_s: mean = sqrt(abar_s) beta / (1 - abar_t) x0 + sqrt(abar_t / abar_s) (1 - abar_s) / (1 - abar_t) z_t,
    variance = (1 - abar_s) / (1 - abar_t) beta. abar_s = 1 gives x0.
    """
    beta = 1 - abar_t / abar_s
    mean = (abar_s.sqrt() * beta * x0 + (abar_t / abar_s).sqrt() * (1 - abar_s) * z_t) / (1 - abar_t)
    return mean, ((1 - abar_s) / (1 - abar_t) * beta).sqrt()


def ddim_step(z_t: Tensor, x0: Tensor, abar_t: Tensor, abar_s: Tensor, *, eta: float) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of z_s (Song et al. 2021, equations 12 and 16); eta = 1 is :func:`posterior`, 0 has no noise."""
    deviation = eta * ((1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s)).sqrt()
    direction = (1 - abar_s - deviation.square()).clamp(min=0).sqrt()
    return abar_s.sqrt() * x0 + direction * implied_eps(z_t, x0, abar_t), deviation


class SteppingSampler(Sampler):
    """Goes from timestep to timestep by what x0 the network sees.

    Args:
        spacing: see :func:`osediff_exp.methods.chain.spacing.spaced_timesteps`.
    """

    def __init__(self, *, spacing: Spacing = "ends") -> None:
        self.spacing: Spacing = spacing

    @abstractmethod
    def step(self, z_t: Tensor, x0: Tensor, abar_t: Tensor, abar_s: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (a scalar) of z_s, s < t."""

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
        timesteps = spaced_timesteps(start=schedule.num_steps - 1 if start is None else start, steps=steps, spacing=self.spacing)
        # Figures of the schedule stay on the CPU, also where networks are built on the meta device.
        abars = [*(schedule.abar(t) for t in timesteps), torch.ones((), dtype=torch.float64, device="cpu")]
        z = z.float()
        for done, (t, (abar_t, abar_s)) in enumerate(zip(timesteps, pairwise(abars), strict=True), 1):
            output = denoise(z, torch.full((len(z),), t, device=z.device)).float()
            z, deviation = self.step(z, predict_x0(z, output, abar_t, schedule.prediction_type), abar_t, abar_s)
            if deviation > 0:
                z = z + deviation * noise(f"step/{t}", tuple(z.shape[1:])).to(z)
            if progress is not None:
                progress(done, len(timesteps))
        return z


@final
class DDPMSampler(SteppingSampler):
    """Ancestral sampling over some of the timesteps, with the posterior's variance (StableSR's and DiffBIR's respaced chains)."""

    def step(self, z_t: Tensor, x0: Tensor, abar_t: Tensor, abar_s: Tensor) -> tuple[Tensor, Tensor]:
        return posterior(z_t, x0, abar_t, abar_s)


@final
class DDIMSampler(SteppingSampler):
    """DDIM; eta 0 draws no noise, 1 as much as DDPM."""

    def __init__(self, *, eta: float = 0.0, spacing: Spacing = "ends") -> None:
        super().__init__(spacing=spacing)
        if not 0 <= eta <= 1:
            raise UserError(f"eta={eta} of the DDIM sampler must lie in 0..1")
        self.eta = eta

    def step(self, z_t: Tensor, x0: Tensor, abar_t: Tensor, abar_s: Tensor) -> tuple[Tensor, Tensor]:
        return ddim_step(z_t, x0, abar_t, abar_s, eta=self.eta)
