"""The score network: a LoRA view of the prior that follows the distribution of the generator's latents."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, NotRequired, TypedDict

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from osediff_exp.diffusion import predict_x0, regression_target
from osediff_exp.losses.base import CriticTerm, LossInputs, TermOutput
from osediff_exp.losses.distillation import Noised, check_range, check_steps, noised, normalizer, prior_estimates, pull
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.lora import AlphaPolicy, add_lora, unet_targets
from osediff_exp.models.views import share_frozen
from osediff_exp.models.without_gradients import without_gradients


class ScoreSettings(TypedDict):
    """The arguments of every term with a score network.

    Keys:
        weight: of the term.
        guidance: of the prior; t_min, t_max: t ~ uniform{t_min..t_max-1}; epsilon: see :func:`~osediff_exp.losses.distillation.normalizer`.
        score_weight, score_t_min, score_t_max: of the score network's own loss.
        rank, alpha, lora_alpha: of its LoRA.
        num_buckets: timestep buckets for the logged score loss.
        gradient_checkpointing: the score network recomputes activations in its backward pass to save memory.
        optimizer: makes the optimizer of the term's own networks from their parameters.
    """

    weight: float
    guidance: float
    t_min: int
    t_max: int
    epsilon: float
    score_weight: float
    score_t_min: int
    score_t_max: int
    rank: int
    alpha: AlphaPolicy
    lora_alpha: int
    num_buckets: int
    gradient_checkpointing: NotRequired[bool]
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]


class ScoreDistillationLoss(CriticTerm):
    """Base of the terms that compare the frozen prior with a score network (ProlificDreamer's VSD and what grew from it).

    The frozen prior is guided between the prompt and the negative prompt; the score network, a LoRA view of the same weights, follows
    the distribution of the generator's latents. No gradient flows through either U-Net; the score network learns by its own denoising loss
    on detached latents. The arguments are those of :class:`ScoreSettings`.
    """

    purpose: ClassVar[str]
    """The term's name in configurations and in the keys of its random numbers."""
    score_purpose: ClassVar[str]
    """Key of the random numbers of the score network's own loss."""

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
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(weight=weight)
        check_range(self.purpose, "t", t_min, t_max)
        check_range(self.purpose, "score_t", score_t_min, score_t_max)
        self.guidance, self.t_min, self.t_max, self.epsilon = guidance, t_min, t_max, epsilon
        self.score_weight, self.score_t_min, self.score_t_max = score_weight, score_t_min, score_t_max
        self.rank, self.alpha, self.lora_alpha = rank, alpha, lora_alpha
        self.num_buckets, self.gradient_checkpointing = num_buckets, gradient_checkpointing
        self.optimizer = optimizer
        self.score: nn.Module | None = None

    def attach(self, backbone: Backbone) -> None:
        check_steps(self.purpose, backbone.schedule, t_max=self.t_max, score_t_max=self.score_t_max)
        self.prior = share_frozen(backbone.unet)
        self.score = share_frozen(backbone.unet)
        add_lora(self.score, unet_targets(self.score), rank=self.rank, alpha=self.alpha, lora_alpha=self.lora_alpha)
        if self.gradient_checkpointing:
            self.score.enable_gradient_checkpointing()  # type: ignore[operator]
        self.schedule = backbone.schedule

    def noised(self, latent: Tensor, inputs: LossInputs) -> Noised:
        """Return ``latent`` under the term's noise of this step."""
        return noised(latent, inputs, self.schedule, self.purpose, self.t_min, self.t_max)

    @without_gradients()
    def estimates(self, at: Noised, inputs: LossInputs) -> tuple[Tensor, Tensor]:
        """Return the guided prior's x0 and the score network's x0 at the same z_t, (B, C, h, w) float32."""
        assert self.score is not None, "attach() has not run"
        x0_prior = prior_estimates(self.prior, at, inputs, self.schedule, self.guidance).guided
        score_output = self.score(at.z_t.to(next(self.prior.parameters()).dtype), at.t, inputs.prompt_embeds).sample.float()
        return x0_prior, predict_x0(at.z_t, score_output, at.abar, self.schedule.prediction_type)

    def match(self, latent: Tensor, inputs: LossInputs) -> TermOutput:
        """Return the VSD loss on ``latent``, with its gradient w (x0_score - x0_prior) (OSEDiff paper, equations 8 and 9)."""
        at = self.noised(latent, inputs)
        x0_prior, x0_score = self.estimates(at, inputs)
        gradient, w = vsd_gradient(at.z, x0_prior, x0_score, epsilon=self.epsilon)
        gap = (x0_score - x0_prior).abs().mean(dim=(1, 2, 3))
        return TermOutput(pull(latent.float(), gradient), {"gap": gap, "w": w})

    def critic_parameters(self) -> list[nn.Parameter]:
        assert self.score is not None, "attach() has not run"
        return [parameter for parameter in self.score.parameters() if parameter.requires_grad]

    def denoising(self, latent: Tensor, inputs: LossInputs) -> TermOutput:
        """Return the score network's denoising loss on detached ``latent`` with the prompt; the logs hold it per bucket of timesteps."""
        assert self.score is not None, "attach() has not run"
        at = noised(latent, inputs, self.schedule, self.score_purpose, self.score_t_min, self.score_t_max)
        output = self.score(at.z_t.to(next(self.prior.parameters()).dtype), at.t, inputs.prompt_embeds).sample
        target = regression_target(at.z, at.eps, at.abar, self.schedule.prediction_type)
        per_sample = (output.float() - target).square().mean(dim=(1, 2, 3))
        return TermOutput(self.score_weight * per_sample.mean(), self._by_bucket(per_sample.detach(), at.t))

    def _by_bucket(self, per_sample: Tensor, t: Tensor) -> dict[str, Tensor]:
        """Return (B,) per bucket: the sample's loss, or NaN where its timestep lies in another bucket."""
        steps = self.schedule.num_steps
        bucket = t * self.num_buckets // steps
        edges = [steps * k // self.num_buckets for k in range(self.num_buckets + 1)]
        nan = per_sample.new_tensor(float("nan"))
        return {
            f"score_loss_t{edges[k]:03d}_{edges[k + 1]:03d}": torch.where(bucket == k, per_sample, nan) for k in range(self.num_buckets)
        }


def vsd_gradient(z: Tensor, x0_prior: Tensor, x0_score: Tensor, *, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return the VSD direction w (x0_score - x0_prior) and w (B,), see :func:`~osediff_exp.losses.distillation.normalizer`."""
    w = normalizer(z, x0_prior, epsilon=epsilon)
    return w.reshape(-1, 1, 1, 1) * (x0_score - x0_prior), w
