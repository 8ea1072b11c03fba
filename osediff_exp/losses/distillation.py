"""What the distillation terms share: noised latents, the guided prior, and a loss with a given gradient.

All terms speak of x0 estimates, as OSEDiff does. For noise eps and a network's noise estimate e at z_t = alpha z + sigma eps,
z - x0 = (sigma / alpha) (e - eps): a difference of x0 estimates at one z_t is the published difference of noise estimates, negated and
scaled by sigma / alpha, and the scale goes into the papers' free weighting w(t).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from osediff_exp.devices import sent
from osediff_exp.diffusion import add_noise, guide, predict_x0
from osediff_exp.errors import UserError
from osediff_exp.losses.base import LossInputs
from osediff_exp.models.noise_schedule import NoiseSchedule
from osediff_exp.randomness import sample_integers, sample_noise


@dataclass(frozen=True)
class Noised:
    """Latents z (B, C, h, w), detached and float32, noise eps, timesteps t (B,), abar_t (B,); z_t = alpha_t z + sigma_t eps."""

    z: Tensor
    eps: Tensor
    t: Tensor
    abar: Tensor
    z_t: Tensor

    def like(self, z: Tensor) -> Noised:
        """Return other latents under the same noise at the same timesteps."""
        z = z.detach().float()
        return Noised(z, self.eps, self.t, self.abar, add_noise(z, self.eps, self.abar))


def noised(latent: Tensor, inputs: LossInputs, schedule: NoiseSchedule, purpose: str, low: int, high: int) -> Noised:
    """Return ``latent`` under noise at t ~ uniform{low..high-1}.

    The draw belongs to (seed, purpose, step, sample), whatever rank holds the sample.
    """
    z = latent.detach().float()
    eps = sample_noise(inputs.seed, purpose, inputs.step, inputs.indices, tuple(z.shape[1:]))
    t = sample_integers(inputs.seed, purpose + "/t", inputs.step, inputs.indices, low, high)
    eps, t = sent(eps, z.device), sent(t, z.device)
    abar = schedule.abar(t)
    return Noised(z, eps, t, abar, add_noise(z, eps, abar))


@dataclass(frozen=True)
class PriorEstimates:
    """The frozen prior's x0 at z_t: ``guided`` between the prompt and the negative prompt, and ``negative`` for the latter alone."""

    guided: Tensor
    negative: Tensor


@torch.no_grad()
def prior_estimates(prior: nn.Module, at: Noised, inputs: LossInputs, schedule: NoiseSchedule, guidance: float) -> PriorEstimates:
    """Return the prior's estimates (B, C, h, w), float32, from one call on both prompts."""
    z_in = at.z_t.to(next(prior.parameters()).dtype)
    prompts = torch.cat([inputs.prompt_embeds, inputs.negative_embeds])
    both = prior(z_in.repeat(2, 1, 1, 1), at.t.repeat(2), prompts).sample.float()
    conditional, negative = both.chunk(2)
    kind = schedule.prediction_type
    return PriorEstimates(
        guided=predict_x0(at.z_t, guide(conditional, negative, guidance), at.abar, kind),
        negative=predict_x0(at.z_t, negative, at.abar, kind),
    )


def normalizer(z: Tensor, x0_prior: Tensor, *, epsilon: float) -> Tensor:
    """Return w (B,) = 1 / max(mean|z - x0_prior|, epsilon), OSEDiff's weight of a sample.

    The released code has no epsilon; where z equals the prior's estimate it divides by zero. All tensors (B, C, h, w).
    """
    return 1.0 / (z - x0_prior).abs().mean(dim=(1, 2, 3)).clamp_min(epsilon)


def pull(z: Tensor, gradient: Tensor) -> Tensor:
    """Return mse(z, (z - gradient).detach()): a loss whose derivative by z is 2 gradient / z.numel()."""
    return F.mse_loss(z, (z - gradient).detach())


def encode_mode(vae: nn.Module, image: Tensor, scaling_factor: float) -> Tensor:
    """Return the scaled mode of E's posterior, (B, C, h, w) float32, of images (B, 3, H, W) in [-1, 1]; the gradient goes through E."""
    return vae.encode(image.to(next(vae.parameters()).dtype)).latent_dist.mode().float() * scaling_factor  # type: ignore[operator]


def check_range(term: str, name: str, low: int, high: int) -> None:
    """Raise UserError unless 0 <= low < high; ``name`` is the keys' common beginning ("t" for t_min and t_max)."""
    if not 0 <= low < high:
        raise UserError(f"loss.terms.{term}.{name}_min={low} must be at least 0 and below loss.terms.{term}.{name}_max={high}")


def check_steps(term: str, schedule: NoiseSchedule, **limits: int) -> None:
    """Raise UserError where a limit lies behind the backbone's last timestep; ``limits`` are the term's keys and their values."""
    keys = " and ".join(f"{'' if k else f'loss.terms.{term}.'}{name}={value}" for k, (name, value) in enumerate(limits.items()))
    if max(limits.values()) > schedule.num_steps:
        raise UserError(f"{keys} must not exceed the backbone's {schedule.num_steps} timesteps")
