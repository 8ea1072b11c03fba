"""A chain whose answer is known: data that are one Gaussian, for which the best eps is a closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from osediff_exp.methods.chain.denoising import Denoise
from osediff_exp.models.generator_base import Noise
from osediff_exp.models.noise_schedule import NoiseSchedule
from osediff_exp.randomness import sample_noise


def sd_schedule(prediction_type: str = "epsilon") -> NoiseSchedule:
    return NoiseSchedule(
        beta_start=0.00085,
        beta_end=0.012,
        schedule="scaled_linear",
        num_steps=1000,
        prediction_type=prediction_type,  # type: ignore[arg-type]
    )


def seeded_noise(seed: int, indices: list[int]) -> Noise:
    return lambda purpose, shape: sample_noise(seed, purpose, 0, indices, shape)


def gaussian_denoise(schedule: NoiseSchedule, *, mean: float, std: float) -> Denoise:
    """Return E[eps | z_t] for z_0 ~ N(mean, std^2): sigma (z - alpha mean) / (alpha^2 std^2 + sigma^2)."""

    def denoise(z: Tensor, t: Tensor) -> Tensor:
        abar = schedule.abar(t).reshape(-1, 1, 1, 1)
        return ((1 - abar).sqrt() * (z - abar.sqrt() * mean) / (abar * std**2 + 1 - abar)).float()

    return denoise


def point_denoise(schedule: NoiseSchedule, x0: Tensor) -> Denoise:
    """Return the eps of data that are the one point ``x0``; every sampler must end there."""

    def denoise(z: Tensor, t: Tensor) -> Tensor:
        abar = schedule.abar(t).reshape(-1, 1, 1, 1)
        eps = (z - abar.sqrt() * x0) / (1 - abar).sqrt()
        return (eps if schedule.prediction_type == "epsilon" else abar.sqrt() * eps - (1 - abar).sqrt() * x0).float()

    return denoise


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
