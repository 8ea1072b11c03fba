"""Distribution matching with a discriminator on the score network's features."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from osediff_exp.diffusion import add_noise
from osediff_exp.errors import UserError
from osediff_exp.losses.adversarial import all_activations_kept, critic_objective, frozen_call, full_precision, generator_objective
from osediff_exp.losses.base import LossInputs, TermOutput
from osediff_exp.losses.distillation import check_range, check_steps, encode_mode, noised
from osediff_exp.losses.score_network import ScoreDistillationLoss, ScoreSettings
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.discriminators.features import FeatureHead, mid_block_features
from osediff_exp.models.views import share_frozen


class DMDGANLoss(ScoreDistillationLoss):
    """DMD2's regularizer: score matching plus a GAN on the score network (Yin et al., NeurIPS 2024, arXiv 2405.14867, section 4.3).

    A small head judges the score network's mid-block features of noised latents: real ones, E(x_H), against restored ones, z_hat. The
    generator minimises softplus(-D(fake)); the head, and with ``train_features`` the score network's LoRA, minimise softplus(D(fake)) +
    softplus(-D(real)).

    Decided here: real and fake share noise and timestep within a step, which takes that variance out of their difference; the head
    ends in a map of logits, so that any latent size fits (DMD2's ends in one).

    Args:
        matching_weight: of DMD's own gradient, which is VSD's (0: the GAN alone). DMD2 halves the square: 0.5 is its ratio to the GAN.
        gan_weight: of softplus(-D(z_hat)) in the generator's loss; critic_weight: of the discriminator's loss beside the denoising loss.
        gan_t_min, gan_t_max: t ~ uniform{gan_t_min..gan_t_max-1} of the judged latents.
        head_width: channels of the head, a multiple of 8.
        train_features: whether the discriminator's loss also trains the score network's LoRA, as in DMD2.
        settings: :class:`~osediff_exp.losses.score_network.ScoreSettings`.
    """

    purpose, score_purpose = "dmd_gan", "dmd_gan/score"

    def __init__(
        self,
        *,
        matching_weight: float,
        gan_weight: float,
        critic_weight: float,
        gan_t_min: int,
        gan_t_max: int,
        head_width: int,
        train_features: bool,
        **settings: Unpack[ScoreSettings],
    ) -> None:
        super().__init__(**settings)
        check_range(self.purpose, "gan_t", gan_t_min, gan_t_max)
        if head_width < 8 or head_width % 8:
            raise UserError(f"loss.terms.dmd_gan.head_width={head_width} must be a multiple of 8")
        self.matching_weight, self.gan_weight, self.critic_weight = matching_weight, gan_weight, critic_weight
        self.gan_t_min, self.gan_t_max = gan_t_min, gan_t_max
        self.head_width, self.train_features = head_width, train_features

    def attach(self, backbone: Backbone) -> None:
        check_steps(self.purpose, backbone.schedule, gan_t_max=self.gan_t_max)
        super().attach(backbone)
        self.vae = share_frozen(backbone.vae)
        self.scaling_factor = backbone.scaling_factor
        self.head = FeatureHead(channels=backbone.unet.config.block_out_channels[-1], width=self.head_width)

    def forward(self, inputs: LossInputs) -> TermOutput:
        """Return the generator's side; the gradient reaches z_hat only, through the noised latent, the score network's first half and
        the head, whose parameters are detached.
        """
        at = noised(inputs.latent, inputs, self.schedule, "dmd_gan/gan", self.gan_t_min, self.gan_t_max)
        z_t = add_noise(inputs.latent.float(), at.eps, at.abar)
        gan = generator_objective(self._logits(z_t, at.t, inputs.prompt_embeds, frozen_features=True, frozen_head=True), "softplus")
        if self.matching_weight == 0:
            return TermOutput(self.gan_weight * gan, {"gan": gan.detach()})
        matching = self.match(inputs.latent, inputs)
        loss = self.matching_weight * matching.loss + self.gan_weight * gan
        return TermOutput(loss, matching.logs | {"matching": matching.loss.detach(), "gan": gan.detach()})

    def critic_parameters(self) -> list[nn.Parameter]:
        return [*super().critic_parameters(), *self.head.parameters()]

    def critic_loss(self, inputs: LossInputs) -> TermOutput:
        """Return the denoising loss on z_hat plus the discriminator's loss on detached z_hat against E(x_H)."""
        denoising = self.denoising(inputs.latent, inputs)
        restored = noised(inputs.latent, inputs, self.schedule, "dmd_gan/critic", self.gan_t_min, self.gan_t_max)
        with torch.no_grad():
            truth = restored.like(encode_mode(self.vae, inputs.target, self.scaling_factor))
        both, t = torch.cat([restored.z_t, truth.z_t]), restored.t.repeat(2)
        prompts = inputs.prompt_embeds.repeat(2, 1, 1)
        fake, real = self._logits(both, t, prompts, frozen_features=not self.train_features, frozen_head=False).chunk(2)
        loss = denoising.loss + self.critic_weight * critic_objective(real, fake, "softplus")
        judged = {"real": real.detach().mean(dim=(1, 2, 3)), "fake": fake.detach().mean(dim=(1, 2, 3))}
        return TermOutput(loss, denoising.logs | judged)

    def _logits(self, z_t: Tensor, t: Tensor, prompt_embeds: Tensor, *, frozen_features: bool, frozen_head: bool) -> Tensor:
        """Return the head's logits (B, 1, h', w') of noised latents under their prompts."""
        assert self.score is not None, "attach() has not run"
        z_in = z_t.to(next(self.prior.parameters()).dtype)
        call = frozen_call if frozen_features else None
        with all_activations_kept(self.score, where=frozen_features and self.gradient_checkpointing):
            features = mid_block_features(self.score, z_in, t, prompt_embeds, call=call).float()
        with full_precision(features):
            return frozen_call(self.head, features) if frozen_head else self.head(features)
