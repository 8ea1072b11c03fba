"""Restoring with a control net on low-quality pixels: what SeeSR's and PASD's samplers share."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from osediff_exp.errors import UserError
from osediff_exp.methods.chain.denoising import Denoise, guided
from osediff_exp.methods.chain.sampler import Sampler as ChainSampler
from osediff_exp.methods.chain.starts import Start, check_start, start_latent
from osediff_exp.methods.pixel_control import embed_by_tiles
from osediff_exp.methods.sampler import Sampler
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator_base import PARTS, Context, Noise

_PARTS = {**PARTS, "unet": ("network.unet",), "control_net": ("network.control_net", "network.embedding")}


class PixelControlled(Sampler):
    """Embeds the pixels once, starts at the low-quality latent with noise, and goes down a chain under guidance.

    The two branches of guidance differ by their text alone; the control net sees it too, and is computed for each.

    Args:
        backbone: frozen; viewed, not copied.
        chain: goes from noise to a latent.
        steps, guidance: of restoring; guidance 1 has no second branch.
        start: ``lr``: the low-quality latent, noised to the schedule's last timestep; ``noise``: noise alone. ``cond`` there is none.

    Raises:
        UserError: an argument is out of range.
    """

    network: nn.Module
    """Predicts; a subclass builds it."""

    parts = _PARTS

    def __init__(self, *, backbone: Backbone, chain: ChainSampler, steps: int, guidance: float, start: Start) -> None:
        check_start(start)
        if start == "cond":
            raise UserError("generator.start=cond needs a method that makes a condition latent of its own: use lr or noise")
        super().__init__(backbone=backbone, steps=steps, max_steps=backbone.schedule.num_steps - 1, guidance=guidance, guided=True)
        self.schedule, self.chain, self.start = backbone.schedule, chain, start
        self.vae_factor = backbone.vae_factor

    @abstractmethod
    def embed(self, pixels: Tensor) -> Tensor:
        """Return the control net's condition (B, C, h, w) of pixels (B, 3, H, W) in [0, 1]."""

    @abstractmethod
    def denoiser(self, text: Tensor, condition: Tensor, context: Context) -> Denoise:
        """Return the network with its conditions, by tiles where :attr:`tiling` is set."""

    def started(self, z_lq: Tensor, noise: Noise) -> Tensor:
        """Return the latents (B, C, h, w) that the chain starts at, of the low-quality ones."""
        last = self.schedule.num_steps - 1
        return start_latent(self.start, lr=z_lq, cond=None, abar_t=self.schedule.abar(last), noise=noise)

    @torch.no_grad()
    def sample(self, lq: Tensor, prompt_embeds: Tensor, noise: Noise, context: Context) -> Tensor:
        z = self.started(self.encode(lq), noise)
        condition, other = self._condition((lq + 1) / 2), context.negative_embeds
        denoise = self.denoiser(prompt_embeds, condition, context)
        if other is not None:
            denoise = guided(denoise, self.denoiser(other, condition, context), self.guidance)
        progress = lambda done, _: self.tell(done)  # noqa: E731
        return self.chain.sample(denoise, z, schedule=self.schedule, steps=self.steps, noise=noise, progress=progress)

    def _condition(self, pixels: Tensor) -> Tensor:
        if self.tiling is None:
            return self.embed(pixels)
        device = next(self.network.parameters()).device
        return embed_by_tiles(self.embed, pixels, vae_factor=self.vae_factor, tiling=self.tiling, device=device)
