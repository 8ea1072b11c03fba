"""Variational score distillation in latent space, with its score network."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from osediff_exp.diffusion import add_noise, guide, predict_x0, regression_target
from osediff_exp.errors import UserError
from osediff_exp.losses.base import CriticTerm, LossInputs, TermOutput
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.lora import AlphaPolicy, add_lora, unet_targets
from osediff_exp.models.views import share_frozen
from osediff_exp.randomness import sample_integers, sample_noise


def vsd_gradient(z: Tensor, x0_prior: Tensor, x0_score: Tensor, *, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return the VSD direction w (x0_score - x0_prior) and w (B,), with w = 1 / max(mean|z - x0_prior|, epsilon) per sample.

    The released code has no epsilon; where z equals the prior's estimate it divides by zero. All tensors (B, C, h, w).
    """
    distance = (z - x0_prior).abs().mean(dim=(1, 2, 3))
    w = 1.0 / distance.clamp_min(epsilon)
    return w.reshape(-1, 1, 1, 1) * (x0_score - x0_prior), w


def vsd_loss(z: Tensor, gradient: Tensor) -> Tensor:
    """Return mse(z, (z - gradient).detach()): a loss whose derivative by z is 2 gradient / z.numel()."""
    return F.mse_loss(z, (z - gradient).detach())


class VSDLoss(CriticTerm):
    """The paper's regularizer (equations 8 to 10): pull z_hat's distribution to the prior's, seen through prior and score network.

    The frozen prior is guided between the prompt and the negative prompt; the score network, a LoRA view of the same weights, follows
    the distribution of z_hat. No gradient flows through either U-Net; the score network learns by its own loss on detached z_hat.

    Args:
        guidance: of the prior; t_min, t_max: t ~ uniform{t_min..t_max-1}; epsilon: see :func:`vsd_gradient`.
        score_weight, score_t_min, score_t_max: of the score network's own loss.
        rank, alpha, lora_alpha: of its LoRA.
        num_buckets: timestep buckets for the logged score loss.
        optimizer: makes the score network's optimizer from its parameters.
    """

    def __init__(
        self,
        *,
        weight: float,
        guidance: float,
        t_min: int,
        t_max: int,
        epsilon: float,
        score_weight: float,
        score_t_min: int,
        score_t_max: int,
        rank: int,
        alpha: AlphaPolicy,
        lora_alpha: int,
        num_buckets: int,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> None:
        super().__init__(weight=weight)
        for low, high, name in ((t_min, t_max, "t"), (score_t_min, score_t_max, "score_t")):
            if not 0 <= low < high:
                raise UserError(f"loss.terms.vsd.{name}_min={low} must be at least 0 and below loss.terms.vsd.{name}_max={high}")
        self.guidance, self.t_min, self.t_max, self.epsilon = guidance, t_min, t_max, epsilon
        self.score_weight, self.score_t_min, self.score_t_max = score_weight, score_t_min, score_t_max
        self.rank, self.alpha, self.lora_alpha = rank, alpha, lora_alpha
        self.num_buckets = num_buckets
        self.optimizer = optimizer
        self.score: nn.Module | None = None

    def attach(self, backbone: Backbone) -> None:
        steps = backbone.schedule.num_steps
        if max(self.t_max, self.score_t_max) > steps:
            raise UserError(
                f"loss.terms.vsd.t_max={self.t_max} and score_t_max={self.score_t_max} must not exceed the backbone's {steps} timesteps"
            )
        self.prior = share_frozen(backbone.unet)
        self.score = share_frozen(backbone.unet)
        add_lora(self.score, unet_targets(self.score), rank=self.rank, alpha=self.alpha, lora_alpha=self.lora_alpha)
        self.schedule = backbone.schedule

    def _noised(self, inputs: LossInputs, purpose: str, low: int, high: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return detached z, eps, t (B,) and z_t; the draw belongs to (seed, step, sample), whatever rank holds the sample."""
        z = inputs.latent.detach().float()
        key = (inputs.seed, purpose, inputs.step, inputs.indices)
        eps = sample_noise(*key, tuple(z.shape[1:])).to(z)
        t = sample_integers(inputs.seed, purpose + "/t", inputs.step, inputs.indices, low, high).to(z.device)
        return z, eps, t, add_noise(z, eps, self.schedule.abar(t))

    @torch.no_grad()
    def _estimates(self, inputs: LossInputs) -> tuple[Tensor, Tensor, Tensor]:
        """Return detached z, the guided prior's x0 and the score network's x0."""
        assert self.score is not None, "attach() has not run"
        z, _, t, z_t = self._noised(inputs, "vsd", self.t_min, self.t_max)
        positive, negative = inputs.prompt_embeds, inputs.negative_embeds
        dtype = next(self.prior.parameters()).dtype
        z_in = z_t.to(dtype)
        both = self.prior(z_in.repeat(2, 1, 1, 1), t.repeat(2), torch.cat([positive, negative])).sample.float()
        conditional, unconditional = both.chunk(2)
        prior_output = guide(conditional, unconditional, self.guidance)
        score_output = self.score(z_in, t, positive).sample.float()
        abar, kind = self.schedule.abar(t), self.schedule.prediction_type
        return z, predict_x0(z_t, prior_output, abar, kind), predict_x0(z_t, score_output, abar, kind)

    def forward(self, inputs: LossInputs) -> TermOutput:
        z, x0_prior, x0_score = self._estimates(inputs)
        gradient, w = vsd_gradient(z, x0_prior, x0_score, epsilon=self.epsilon)
        gap = (x0_score - x0_prior).abs().mean(dim=(1, 2, 3))
        return TermOutput(vsd_loss(inputs.latent.float(), gradient), {"gap": gap, "w": w})

    def critic_parameters(self) -> list[nn.Parameter]:
        assert self.score is not None, "attach() has not run"
        return [parameter for parameter in self.score.parameters() if parameter.requires_grad]

    def critic_loss(self, inputs: LossInputs) -> TermOutput:
        """Return the score network's denoising loss on detached z_hat with the prompt; the logs hold it per bucket of timesteps."""
        assert self.score is not None, "attach() has not run"
        z, eps, t, z_t = self._noised(inputs, "score", self.score_t_min, self.score_t_max)
        output = self.score(z_t.to(next(self.prior.parameters()).dtype), t, inputs.prompt_embeds).sample
        target = regression_target(z, eps, self.schedule.abar(t), self.schedule.prediction_type)
        per_sample = (output.float() - target).square().mean(dim=(1, 2, 3))
        return TermOutput(self.score_weight * per_sample.mean(), self._by_bucket(per_sample.detach(), t))

    def _by_bucket(self, per_sample: Tensor, t: Tensor) -> dict[str, Tensor]:
        """Return (B,) per bucket: the sample's loss, or NaN where its timestep lies in another bucket."""
        steps = self.schedule.num_steps
        bucket = t * self.num_buckets // steps
        edges = [steps * k // self.num_buckets for k in range(self.num_buckets + 1)]
        nan = per_sample.new_tensor(float("nan"))
        return {
            f"score_loss_t{edges[k]:03d}_{edges[k + 1]:03d}": torch.where(bucket == k, per_sample, nan) for k in range(self.num_buckets)
        }
