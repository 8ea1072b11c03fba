"""Diffusion mathematics as pure functions of tensors.

Notation of the paper: abar_t is the cumulative product of (1 - beta), alpha_t = sqrt(abar_t), sigma_t = sqrt(1 - abar_t), and
x_t = alpha_t * x0 + sigma_t * eps. ``abar_t`` is a scalar tensor or (B,), as :class:`TimestepTable` gives it; images and latents are
(B, C, H, W). Everything is computed in the dtype of the inputs; pass float32 where abar is small: at T = 999 of SD-2.1 the gain
1 / alpha_T is 14.65.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

PredictionType = Literal["epsilon", "v_prediction"]


class TimestepTable:
    """A number for each timestep, in float64, looked up where the timesteps are: on a GPU nothing waits for them."""

    def __init__(self, values: Tensor) -> None:
        """Take ``values`` (num_steps,), float64 on the CPU."""
        self._on = {values.device: values}
        self.values = values

    def __getitem__(self, t: int | Tensor) -> Tensor:
        """Return the scalar of an integer, on the CPU, or (B,) of timesteps (B,): where these are, on the CPU where that has no float64."""
        if isinstance(t, int):
            return self.values[t]
        device = t.device if t.is_cuda else self.values.device
        if device not in self._on:
            self._on[device] = self.values.to(device)
        return self._on[device][t.to(device)]


def rounded_like(x: Tensor, *coefficients: Tensor) -> list[Tensor]:
    """Return ``coefficients`` in x's dtype, and those of samples (B,) where x is, shaped to multiply it.

    Scalars stay on the CPU, from where any device takes them as numbers.
    """
    shape = (-1, *[1] * (x.ndim - 1))
    return [c.to(x.dtype).to(x.device).reshape(shape) if c.ndim else c.to(x.dtype) for c in coefficients]


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

    These are taken where ``abar_t`` is: Apple's GPUs have no float64.
    """
    abar = abar_t.double()
    alpha, sigma = rounded_like(like, abar.sqrt(), (1.0 - abar).sqrt())
    return alpha, sigma


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
