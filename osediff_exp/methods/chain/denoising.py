"""What a conditioned U-Net is to the chain: a function of noisy latents and timesteps; its loss, guidance and estimates of x0."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from osediff_exp.diffusion import add_noise, guide, predict_x0, regression_target
from osediff_exp.models.noise_schedule import NoiseSchedule

Denoise = Callable[[Tensor, Tensor], Tensor]
"""``denoise(z_t, t)`` returns what the U-Net predicts (eps, or v), (B, C, h, w), for latents z_t (B, C, h, w) at timesteps t (B,) int64;
whatever conditions it is bound already."""


def denoising_loss(denoise: Denoise, z0: Tensor, *, eps: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Return the plain MSE between prediction and target at z_t, a scalar (Ho et al. 2020, equation 14: weight 1 at every t).

    Args:
        z0: scaled latents of the ground truth, (B, C, h, w).
        eps: standard normal, of z0's shape.
        t: timesteps (B,) int64 in 0..num_steps-1.
        schedule: says abar_t, and whether the target is eps or v.
    """
    abar = schedule.abar(t)
    target = regression_target(z0, eps, abar, schedule.prediction_type)
    return F.mse_loss(denoise(add_noise(z0, eps, abar), t).float(), target.float())


def guided(conditional: Denoise, unconditional: Denoise, scale: float) -> Denoise:
    """Return the denoiser under classifier-free guidance; ``scale`` 1 is ``conditional`` itself, so that its other branch costs nothing.

    The two differ by their text alone: control features stay in both.
    """
    if scale == 1:
        return conditional
    return lambda z_t, t: guide(conditional(z_t, t).float(), unconditional(z_t, t).float(), scale)


def with_adjusted_x0(denoise: Denoise, adjust: Callable[[Tensor, Tensor], Tensor], schedule: NoiseSchedule) -> Denoise:
    """Return a denoiser whose estimate of x0 is ``adjust(x0, t)``, float32: any sampler then follows the adjusted estimate."""

    def adjusted(z_t: Tensor, t: Tensor) -> Tensor:
        z_t, abar = z_t.float(), schedule.abar(t)
        x0 = adjust(predict_x0(z_t, denoise(z_t, t).float(), abar, schedule.prediction_type), t)
        return regression_target(x0, implied_eps(z_t, x0, abar), abar, schedule.prediction_type)

    return adjusted


def implied_eps(z_t: Tensor, x0: Tensor, abar_t: Tensor) -> Tensor:
    """Return the eps with which x0 becomes z_t: (z_t - alpha_t x0) / sigma_t."""
    # x0 = (z - sigma eps) / alpha, read the other way round: alpha and sigma change places, and so do x0 and eps.
    return predict_x0(z_t, x0, 1.0 - abar_t, "epsilon")
