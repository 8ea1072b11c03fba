"""PASD's sampler."""

from __future__ import annotations

from typing import final

from torch import Tensor

from osediff_exp.diffusion import add_noise
from osediff_exp.errors import UserError
from osediff_exp.methods.chain.binding import bound
from osediff_exp.methods.chain.denoising import Denoise
from osediff_exp.methods.chain.starts import Start
from osediff_exp.methods.chain.unipc import UniPCSampler
from osediff_exp.methods.pasd.network import PASDNetwork
from osediff_exp.methods.pixel_controlled import PixelControlled
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator_base import Context, Noise


@final
class PASDGenerator(PixelControlled):
    """PASD: UniPC from the low-quality latent with noise, guided between the prompt and the negative prompt.

    The released sampler noises the latent to the chain's first timestep, 999, and what comes of it once more, to 900 (its
    ``added_noise_level``); then it takes the whole chain from 999. So does this one: alpha is that of 999 times that of 900, .008 on Stable
    Diffusion, so that of the picture little more than its brightness is left.

    Departures: the low-quality latent is the posterior's mode, so that a picture's restoration is a function of (seed, name); the colour
    fix is the Restorer's, ``adain`` unless it is told otherwise (released: ``wavelet``).

    Args:
        backbone, gradient_checkpointing: see :class:`PASDNetwork`.
        steps, guidance: published 20 and 9.
        start: see :class:`PixelControlled`.
        noised_again: the timestep of the second noise at ``start=lr``; None: there is none.

    Raises:
        UserError: there is no such timestep, or as :class:`PixelControlled`.
    """

    network: PASDNetwork

    def __init__(
        self,
        *,
        backbone: Backbone,
        steps: int = 20,
        guidance: float = 9.0,
        start: Start = "lr",
        noised_again: int | None = 900,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(backbone=backbone, chain=UniPCSampler(), steps=steps, guidance=guidance, start=start)
        if noised_again is not None and not 0 <= noised_again < self.schedule.num_steps:
            raise UserError(f"generator.noised_again={noised_again} is outside the backbone's 0..{self.schedule.num_steps - 1}")
        self.noised_again = noised_again
        self.network = PASDNetwork(backbone=backbone, gradient_checkpointing=gradient_checkpointing)

    def started(self, z_lq: Tensor, noise: Noise) -> Tensor:
        z = super().started(z_lq, noise)
        if self.start != "lr" or self.noised_again is None:
            return z
        return add_noise(z, noise("start/again", tuple(z.shape[1:])).to(z), self.schedule.abar(self.noised_again))

    def embed(self, pixels: Tensor) -> Tensor:
        return self.network.embed(pixels).embedding

    def denoiser(self, text: Tensor, condition: Tensor, context: Context) -> Denoise:
        return bound(self.network, text, condition, schedule=self.schedule, tiling=self.tiling, multiple=self.unet_factor)
