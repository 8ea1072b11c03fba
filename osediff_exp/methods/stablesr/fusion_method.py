"""StableSR's second training (stage ``cfw``): fusions correct the decoder on latents that the diffusion model samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from osediff_exp.errors import UserError
from osediff_exp.losses.base import LossInputs, LossTerm
from osediff_exp.losses.gan import GANLoss
from osediff_exp.methods.base import Group, Method, MethodLoss, OptimizerFactory, Parts, earlier_part
from osediff_exp.methods.batch import TrainingBatch
from osediff_exp.methods.stablesr.generator import StableSRGenerator
from osediff_exp.models.generator_base import NOTHING


class StableSRFusion(Method):
    """L1 + perceptual distance + weight * GAN of the decoded picture at w = 1; the fusions train, everything else is frozen.

    The released code samples the latents once, in 200 steps, and stores them; here each batch's are sampled anew, in fewer. Its
    discriminator is a PatchGAN; this is the framework's (Real-ESRGAN's U-Net). Its weight of .025 is meant to be adaptive, but stays
    constant, because the decoder's last layer, whose gradients it would compare, is frozen.

    Args:
        parts: with a :class:`StableSRGenerator` of stage ``cfw``, and ``earlier["diffusion"]``, the trained diffusion model.
        optimizer: of the fusions.
        perceptual, discriminator: make the two terms; their weights count (released: LPIPS, 1; hinge, .025).
        gan_start: the first step with the discriminator (released: 501).
        latent_steps: of the chain that samples a batch's latents.

    Raises:
        UserError: the diffusion model has another shape, or ``latent_steps`` is out of range.
    """

    generator: StableSRGenerator

    def __init__(
        self,
        parts: Parts,
        *,
        optimizer: OptimizerFactory,
        perceptual: Callable[[], LossTerm],
        discriminator: Callable[[], GANLoss],
        gan_start: int,
        latent_steps: int,
    ) -> None:
        super().__init__(parts, optimizer=optimizer)
        if not 1 <= latent_steps <= self.generator.max_steps:
            raise UserError(f"method.training.latent_steps={latent_steps} is out of range: use 1 to {self.generator.max_steps}")
        self.generator.adopt(earlier_part(parts, "diffusion", StableSRGenerator))
        self.perceptual, self.gan = perceptual(), discriminator()
        self.gan_start, self.latent_steps = gan_start, latent_steps
        for term in (self.perceptual, self.gan):
            term.attach(parts.backbone)

    def groups(self) -> dict[str, Group]:
        return super().groups() | {"gan": Group(parameters=self.gan.critic_parameters(), optimizer=self.gan.optimizer)}

    def loss(self, batch: TrainingBatch) -> MethodLoss:
        latent = self._latents(batch)
        image = self.generator.fuse(latent, batch.lq, w=1.0)
        inputs = LossInputs(
            output=image,
            target=batch.hq,
            latent=latent,
            prompt_embeds=batch.prompt_embeds,
            negative_embeds=batch.negative_embeds,
            seed=batch.seed,
            step=batch.step,
            indices=batch.indices,
        )
        # Before its start the discriminator's losses count nothing; their graphs stay, because DDP waits for every gradient.
        on = float(batch.step + 1 >= self.gan_start)
        parts = {"l1": F.l1_loss(image, batch.hq), "perceptual": self.perceptual(inputs).loss, "gan": self.gan(inputs).loss}
        critic = self.gan.critic_loss(inputs)
        loss = parts["l1"] + self.perceptual.weight * parts["perceptual"] + on * self.gan.weight * parts["gan"]
        logs = {f"train/{name}": part.detach() for name, part in parts.items()}
        figures = {f"gan/{name}": value.detach() for name, value in critic.logs.items()}
        logs |= figures | {"train/loss": loss.detach(), "train/gan_critic": critic.loss.detach()}
        return MethodLoss(loss + on * critic.loss, logs)

    @torch.no_grad()
    def _latents(self, batch: TrainingBatch) -> Tensor:
        """Return what the diffusion model makes of the low-quality pictures, (B, C, h, w), scaled."""

        def noise(purpose: str, shape: tuple[int, ...]) -> Tensor:
            return batch.noise(f"stablesr/cfw/{purpose}", shape)

        steps, told = self.generator.steps, self.generator.on_step
        self.generator.set_sampling(steps=self.latent_steps)
        self.generator.on_step = None
        try:
            return self.generator.sample(batch.lq, batch.prompt_embeds, noise, NOTHING)
        finally:
            self.generator.set_sampling(steps=steps)
            self.generator.on_step = told
