"""What ResShift's and SinSR's generators share: schedule, network, start."""

from __future__ import annotations

import torch
from torch import Tensor

from osediff_exp.methods.resshift.network import call_unet, own_unet
from osediff_exp.methods.resshift.schedule import ShiftSchedule
from osediff_exp.methods.sampler import Sampler
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator_base import Noise
from osediff_exp.models.tiled_unet import tiled_denoise


class ShiftGenerator(Sampler):
    """Predicts z_0 from any z_t of the shifting chain.

    Args:
        backbone: frozen; its VAE is viewed, its U-Net's architecture (and weights, unless ``from_scratch``) copied.
        schedule: of the chain.
        steps, max_steps: see :class:`Sampler`.
        from_scratch: see :func:`own_unet`.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
    """

    takes_bytes = True

    def __init__(
        self,
        *,
        backbone: Backbone,
        schedule: ShiftSchedule,
        steps: int,
        max_steps: int,
        from_scratch: bool,
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__(backbone=backbone, steps=steps, max_steps=max_steps)
        self.schedule = schedule
        self.unet = own_unet(backbone, from_scratch=from_scratch)
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()

    def predict(self, z_t: Tensor, y: Tensor, t: int | Tensor) -> Tensor:
        """Return z_0 (B, C, h, w) of z_t and y, by tiles where :attr:`tiling` is set; ``t``: an integer 1..T, or (B,)."""
        scaled = self.schedule.scaled(z_t, t)
        if self.tiling is None:
            return call_unet(self.unet, scaled, y, t if isinstance(t, Tensor) else self._times(z_t, t))
        assert isinstance(t, int), "tiles are for restoring, where all pictures are at one t"

        def call(embeds: Tensor, scaled: Tensor, y: Tensor) -> Tensor:
            return call_unet(self.unet, scaled, y, self._times(scaled, t))

        text = z_t.new_zeros(len(z_t), 1, 1)
        noise = [self.schedule.noise_in_scaled(t)]
        return tiled_denoise(call, text, scaled, y, network=self.unet, tiling=self.tiling, multiple=self.unet_factor, noise=noise)

    @staticmethod
    def _times(like: Tensor, t: int) -> Tensor:
        return torch.full((len(like),), t, device=like.device)

    def started(self, lq: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Return y, the latent of ``lq``, and z_T."""
        y = self.encode(lq)
        return y, self.schedule.start(y, noise("start", tuple(y.shape[1:])).to(y))
