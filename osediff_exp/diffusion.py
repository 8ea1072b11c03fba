"""Diffusion mathematics as pure functions of tensors.

Notation of the paper: abar_t is the cumulative product of (1 - beta), alpha_t = sqrt(abar_t), sigma_t = sqrt(1 - abar_t), and
x_t = alpha_t * x0 + sigma_t * eps. ``abar_t`` is a scalar tensor or (B,), on the CPU; images and latents are (B, C, H, W). Everything is
computed in the dtype of the inputs; pass float32 where abar is small: at T = 999 of SD-2.1 the gain 1 / alpha_T is 14.65.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

PredictionType = Literal["epsilon", "v_prediction"]


def cumulative_alphas(betas: Tensor) -> Tensor:
    """Return abar (num_steps,) in float64 for betas (num_steps,)."""
    return torch.cumprod(1.0 - betas.double(), dim=0)


def beta_schedule(name: str, *, start: float, end: float, num_steps: int) -> Tensor:
    """Return betas (num_steps,) in float64: ``linear``, or ``scaled_linear`` (linear in sqrt(beta), Stable Diffusion's)."""
    if name == "linear":
        return torch.linspace(start, end, num_steps, dtype=torch.float64)
    if name == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, num_steps, dtype=torch.float64).square()
    raise ValueError(f"beta schedule '{name}' is not supported: use 'linear' or 'scaled_linear'")


def _alpha_sigma(abar_t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return alpha_t and sigma_t shaped to multiply ``like``, rounded to its dtype only after the square roots.

    These are taken where ``abar_t`` is, the CPU: Apple's GPUs have no float64.
    """
    abar = abar_t.double()
    alpha, sigma = (root.to(like.dtype).to(like.device) for root in (abar.sqrt(), (1.0 - abar).sqrt()))
    shape = (-1, *[1] * (like.ndim - 1)) if abar_t.ndim else ()
    return alpha.reshape(shape), sigma.reshape(shape)


def add_noise(x0: Tensor, eps: Tensor, abar_t: Tensor) -> Tensor:
    """Return x_t = alpha_t x0 + sigma_t eps."""
    alpha, sigma = _alpha_sigma(abar_t, x0)
    return alpha * x0 + sigma * eps


def predict_x0(x_t: Tensor, model_output: Tensor, abar_t: Tensor, prediction_type: PredictionType) -> Tensor:
    """Return the x0 that a U-Net's output stands for; for eps this is OSEDiff's F, (z - sigma_T eps) / alpha_T."""
    alpha, sigma = _alpha_sigma(abar_t, x_t)
    if prediction_type == "epsilon":
        return (x_t - sigma * model_output) / alpha
    if prediction_type == "v_prediction":
        return alpha * x_t - sigma * model_output
    raise ValueError(f"prediction type '{prediction_type}' is not supported: use 'epsilon' or 'v_prediction'")


def regression_target(x0: Tensor, eps: Tensor, abar_t: Tensor, prediction_type: PredictionType) -> Tensor:
    """Return what the U-Net should output at x_t: eps, or v = alpha_t eps - sigma_t x0 (Salimans and Ho 2022)."""
    if prediction_type == "epsilon":
        return eps
    if prediction_type == "v_prediction":
        alpha, sigma = _alpha_sigma(abar_t, x0)
        return alpha * eps - sigma * x0
    raise ValueError(f"prediction type '{prediction_type}' is not supported: use 'epsilon' or 'v_prediction'")


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Return classifier-free guidance: unconditional + scale * (conditional - unconditional) (Ho and Salimans 2022)."""
    return unconditional + scale * (conditional - unconditional)
