"""SeeSR's sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from osediff_exp.errors import UserError
from osediff_exp.methods.chain.binding import noise_in
from osediff_exp.methods.chain.ddpm import DDPMSampler
from osediff_exp.methods.chain.denoising import Denoise
from osediff_exp.methods.chain.spacing import Spacing
from osediff_exp.methods.chain.starts import Start
from osediff_exp.methods.pixel_controlled import PixelControlled
from osediff_exp.methods.seesr.network import SeeSRNetwork
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator_base import Context
from osediff_exp.models.tiled_unet import tiled_denoise


@final
class SeeSRGenerator(PixelControlled):
    """SeeSR: a respaced DDPM chain from the low-quality latent noised to t = 999, guided between the prompt and the negative prompt, with
    a tagger's tokens of the picture beside its words in both branches.

    Departures from the released sampler: the low-quality latent is the posterior's mode, so that a picture's restoration is a function of
    (seed, name); the timesteps go from 999 to 0, where diffusers' default has 981, 961, .. 1 (``spacing=leading``), which does not fit the
    start and has no first half where steps are few.

    Args:
        backbone, gradient_checkpointing: see :class:`SeeSRNetwork`.
        image_embeds_shape: number and width of the image tokens: (145, 512) for RAM and DAPE at 384 px, (50, 1280) for the classifier of
            ``prompt=tagged``.
        steps, guidance: published 50 and 5.5.
        start: see :class:`PixelControlled`.
        spacing: see :func:`osediff_exp.methods.chain.spacing.spaced_timesteps`.

    Raises:
        UserError: there are no image tokens, or as :class:`PixelControlled`.
    """

    wants_image_embeds = True
    network: SeeSRNetwork

    def __init__(
        self,
        *,
        backbone: Backbone,
        image_embeds_shape: Sequence[int] | None = (145, 512),
        steps: int = 50,
        guidance: float = 5.5,
        start: Start = "lr",
        spacing: Spacing = "ends",
        gradient_checkpointing: bool = False,
    ) -> None:
        if image_embeds_shape is None:
            raise UserError("method=seesr needs a tagger's image features: choose prompt=tagged or prompt=ram")
        super().__init__(backbone=backbone, chain=DDPMSampler(spacing=spacing), steps=steps, guidance=guidance, start=start)
        self.image_embeds_shape = (image_embeds_shape[0], image_embeds_shape[1])
        self.network = SeeSRNetwork(backbone=backbone, token_width=image_embeds_shape[1], gradient_checkpointing=gradient_checkpointing)

    def embed(self, pixels: Tensor) -> Tensor:
        return self.network.embed(pixels)

    def denoiser(self, text: Tensor, condition: Tensor, context: Context) -> Denoise:
        tokens = context.image_embeds
        assert tokens is not None, "SeeSR attends to image tokens"
        if self.tiling is None:
            return lambda z_t, t: self.network(z_t, t, text, condition, tokens)
        tiling, words, seen = self.tiling, text.shape[1:], tokens.shape[1:]
        both = torch.cat([text.flatten(1), tokens.flatten(1)], dim=1)  # a picture's tiles get what is that picture's

        def by_tiles(z_t: Tensor, t: Tensor) -> Tensor:
            def call(both: Tensor, z_t: Tensor, condition: Tensor) -> Tensor:
                text, tokens = both.split([words.numel(), seen.numel()], dim=1)
                return self.network(z_t, t[: len(z_t)], text.unflatten(1, words), condition, tokens.unflatten(1, seen))

            noise = [noise_in(self.schedule, t)]
            return tiled_denoise(call, both, z_t, condition, network=self.network, tiling=tiling, multiple=self.unet_factor, noise=noise)

        return by_tiles
