"""StableSR's conditioned U-Net: the frozen prior, modulated by the time-aware encoder of the low-quality latent."""

from __future__ import annotations

from torch import Tensor, nn

from osediff_exp.methods.carried_maps import CarriedMaps
from osediff_exp.methods.stablesr.encoder import TimeAwareEncoder, encoder_width
from osediff_exp.methods.stablesr.spade import modulate
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.views import share_frozen


class StructureUNet(nn.Module):
    """The prior's U-Net with SPADE in every ResBlock; the encoder and SPADE train, the prior's own weights are shared and frozen.

    Args:
        backbone: its U-Net is viewed, not copied or changed.
        width: of the encoder; None: in the released proportion to the U-Net's (256 for Stable Diffusion 2.1).
        neutral: start as the prior, see :class:`osediff_exp.methods.stablesr.spade.Spade`.
    """

    def __init__(self, *, backbone: Backbone, width: int | None = None, neutral: bool = True) -> None:
        super().__init__()
        config = backbone.unet.config
        groups, widths = config.norm_num_groups, config.block_out_channels
        width = width or encoder_width(widths[0], groups=groups)
        self.unet = share_frozen(backbone.unet)
        self.encoder = TimeAwareEncoder(in_channels=config.in_channels, width=width, levels=len(widths), groups=groups)
        self._maps = CarriedMaps()
        modulate(self.unet, maps=self._maps, map_channels=width, groups=groups, neutral=neutral)

    def forward(self, z_t: Tensor, t: Tensor, prompt_embeds: Tensor, lq: Tensor) -> Tensor:
        """Return the prediction (B, C, h, w).

        Args:
            z_t: noisy latents (B, C, h, w), scaled.
            t: timesteps (B,) int64.
            prompt_embeds: text features (B, L, D).
            lq: scaled latents (the posterior's mode) of the low-quality pictures, (B, C, h, w).
        """
        maps = self.encoder(lq.float(), t)
        self._maps.replace({tuple(each.shape[-2:]): each for each in maps})
        return self.unet(z_t.to(self.unet.dtype), t, prompt_embeds).sample
