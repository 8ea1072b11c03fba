"""The adversarial term on pictures, with its discriminator."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from osediff_exp.errors import UserError
from osediff_exp.losses.adversarial import Objective, check_objective, critic_objective, frozen_call, full_precision, generator_objective
from osediff_exp.losses.base import CriticTerm, LossInputs, TermOutput
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.discriminators.unet import UNetDiscriminator


class GANLoss(CriticTerm):
    """A discriminator between restored and real pictures (the GAN arm of the OSEDiff paper's Table 3, which names no architecture).

    The discriminator is Real-ESRGAN's U-Net, one logit per pixel.

    Args:
        weight: of the term.
        generator_weight: factor on the generator's adversarial loss, so that ``weight`` 1 has about the strength of VSD.
        objective: ``hinge`` or ``softplus``, of both players.
        width: channels of the discriminator's first layer.
        spectral_norm: divide its inner weights by their largest singular value.
        r1: gamma of the gradient penalty on real pictures (Mescheder et al., ICML 2018), 0 for none.
        r1_every: steps between penalties; each is then ``r1_every`` times as large (StyleGAN2's lazy regularization).
        optimizer: makes the discriminator's optimizer.
    """

    def __init__(
        self,
        *,
        weight: float,
        generator_weight: float,
        objective: Objective,
        width: int,
        spectral_norm: bool,
        r1: float,
        r1_every: int,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> None:
        super().__init__(weight=weight)
        check_objective("loss.terms.gan.objective", objective)
        if width < 1 or r1_every < 1:
            raise UserError(f"loss.terms.gan.width={width} and loss.terms.gan.r1_every={r1_every} must be at least 1")
        self.generator_weight, self.objective = generator_weight, objective
        self.width, self.spectral_norm = width, spectral_norm
        self.r1, self.r1_every = r1, r1_every
        self.optimizer = optimizer

    def attach(self, backbone: Backbone) -> None:
        # Built here and not in __init__: the seed is set before each term is attached.
        self.discriminator = UNetDiscriminator(width=self.width, spectral_norm=self.spectral_norm)

    def forward(self, inputs: LossInputs) -> TermOutput:
        """Return the generator's side; the gradient reaches the output picture only."""
        with full_precision(inputs.output):
            fake = frozen_call(self.discriminator, inputs.output)
        return TermOutput(self.generator_weight * generator_objective(fake, self.objective))

    def critic_parameters(self) -> list[nn.Parameter]:
        return list(self.discriminator.parameters())

    def critic_loss(self, inputs: LossInputs) -> TermOutput:
        """Return the discriminator's side on detached pictures; the logs hold its mean logits, and every ``r1_every`` steps R1."""
        penalised = self.r1 > 0 and inputs.step % self.r1_every == 0
        target = inputs.target.detach().clone().requires_grad_(penalised)
        with full_precision(target):
            real, fake = self.discriminator(target), self.discriminator(inputs.output.detach())
            loss = critic_objective(real, fake, self.objective)
            logs = {"real": real.detach().mean(dim=(1, 2, 3)), "fake": fake.detach().mean(dim=(1, 2, 3))}
            if penalised:
                logs["r1"] = (penalty := r1_penalty(real, target)).detach()
                loss = loss + 0.5 * self.r1 * self.r1_every * penalty.mean()
        return TermOutput(loss, logs)


def r1_penalty(real: Tensor, target: Tensor) -> Tensor:
    """Return, per sample (B,), the mean over pixels of |d(sum of logits) / d pixel|^2.

    ``target`` (B, C, H, W) must require a gradient and ``real`` (B, 1, h, w) depend on it. R1 is stated for one logit per picture; the
    mean over pixels makes it independent of the picture's size where each pixel has one.
    """
    (gradient,) = torch.autograd.grad(real.sum(), target, create_graph=True)
    return gradient.square().sum(dim=1).mean(dim=(1, 2))
