"""Generators that sample: many steps in the latent space of a frozen VAE."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator_base import NOTHING, Context, Generator, GeneratorOutput, Noise
from osediff_exp.models.latents import decode_latent, encode_mode
from osediff_exp.models.views import share_frozen


class Sampler(Generator):
    """Encodes, samples, decodes. What lies between is the subclass's :meth:`sample`.

    Args:
        backbone: frozen; its VAE is viewed, not copied.
        steps: that restoring takes.
        max_steps: more make no sense (the chain's length).
        guidance: classifier-free; 1 is none.
        guided: whether it can be guided at all.

    Raises:
        UserError: steps or guidance are out of range.
    """

    draws_noise = True

    def __init__(self, *, backbone: Backbone, steps: int, max_steps: int, guidance: float = 1.0, guided: bool = False) -> None:
        super().__init__()
        self.max_steps, self.guided = max_steps, guided
        self.set_sampling(steps=steps, guidance=guidance)
        self.vae = share_frozen(backbone.vae)
        self.unet_factor = 2 ** (len(backbone.unet.config.block_out_channels) - 1)

    def set_sampling(self, *, steps: int | None = None, guidance: float | None = None) -> None:
        """See :meth:`Generator.set_sampling`.

        Raises:
            UserError: it cannot take so many steps, or no guidance.
        """
        name = type(self).__name__
        if steps is not None and not 1 <= steps <= self.max_steps:
            raise UserError(f"steps={steps} is not possible: {name} takes 1 to {self.max_steps}")
        if guidance is not None and guidance != 1 and not self.guided:
            raise UserError(f"guidance={guidance} is not possible: {name} has no guidance; set guidance=null")
        if guidance is not None and guidance < 0:
            raise UserError(f"guidance={guidance} must not be negative; 1 is none")
        self.steps = self.steps if steps is None else steps
        self.guidance = self.guidance if guidance is None else float(guidance)
        self.wants_negative = self.guidance != 1

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Return the scaled mode (B, C, h, w), float32, of ``image`` (B, 3, H, W) in [-1, 1], by tiles where :attr:`tiling` is set."""
        return encode_mode(self.vae, image, self.tiling)

    def decode(self, latent: Tensor) -> Tensor:
        """Return the picture (B, 3, H, W), clamped to [-1, 1], of scaled latents, by tiles where :attr:`tiling` is set."""
        return decode_latent(self.vae, latent, self.tiling, self.light_decoder)

    @abstractmethod
    def sample(self, lq: Tensor, prompt_embeds: Tensor, noise: Noise, context: Context) -> Tensor:
        """Return the restored latents (B, C, h, w), scaled, float32, in :attr:`steps` steps; calls :meth:`tell` after each."""

    def tell(self, done: int) -> None:
        """Report that ``done`` steps are done."""
        if self.on_step is not None:
            self.on_step(done, self.steps)

    def forward(self, lq: Tensor, prompt_embeds: Tensor, noise: Noise | None = None, context: Context = NOTHING) -> GeneratorOutput:
        assert noise is not None, "a sampler draws noise"
        latent = self.sample(lq, prompt_embeds, noise, context)
        return GeneratorOutput(image=self.decode(latent), latent=latent)
