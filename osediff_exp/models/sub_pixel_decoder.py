"""A decoder of latents that computes at the latents' resolution: light, because most of a VAE decoder's work is done at the picture's."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """The VAE's own residual block; it also returns what its last convolution sees."""

    def __init__(self, channels: int, norm_num_groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(norm_num_groups, channels, eps=1e-6)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(norm_num_groups, channels, eps=1e-6)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        inner = F.silu(self.norm2(self.conv1(F.silu(self.norm1(x)))))
        return x + self.conv2(inner), inner


class SubPixelDecoder(ModelMixin, ConfigMixin):
    """From scaled latents (B, C, h, w) to pictures (B, 3, h * factor, w * factor), about [-1, 1], not clamped.

    The first layers of an AutoencoderKL's decoder, all at the latents' resolution; then, in place of its upsampling blocks, one convolution
    that gives each latent pixel its factor x factor image pixels (sub-pixel convolution: Shi et al., CVPR 2016). That one sees three maps:
    the last block's output x, SiLU(norm(x)), and the last block's inner features; x alone costs 3 to 4 dB. A module of diffusers,
    so that it is saved and loaded as a VAE is.

    Args:
        latent_channels: C.
        channels, norm_num_groups, num_blocks: of the residual blocks.
        factor: image pixels per latent pixel along one side.
        scaling_factor: of the VAE whose latents these are.
        teacher: fingerprint of the decoder that it imitates (:func:`osediff_exp.models.backbone.fingerprint_of`).
    """

    @register_to_config
    def __init__(
        self,
        *,
        latent_channels: int,
        channels: int,
        norm_num_groups: int,
        num_blocks: int,
        factor: int,
        scaling_factor: float,
        teacher: str,
    ) -> None:
        super().__init__()
        self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1)
        self.conv_in = nn.Conv2d(latent_channels, channels, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(channels, norm_num_groups) for _ in range(num_blocks))
        self.norm_out = nn.GroupNorm(norm_num_groups, channels, eps=1e-6)
        self.conv_out = nn.Conv2d(3 * channels, 3 * factor**2, 3, padding=1)
        self.pixels = nn.PixelShuffle(factor)

    def features(self, latent: Tensor) -> Tensor:
        """Return the three maps, (B, 3 * channels, h, w)."""
        x = self.conv_in(self.post_quant_conv(latent / self.config.scaling_factor))
        inner = x
        for block in self.blocks:
            x, inner = block(x)
        return torch.cat([x, F.silu(self.norm_out(x)), inner], dim=1)

    def forward(self, latent: Tensor) -> Tensor:
        # In the weights' own type, also under autocast: the fitted layer sums large terms of both signs, which bfloat16 rounds to levels.
        with torch.autocast(latent.device.type, enabled=False):
            return self.pixels(self.conv_out(self.features(latent)))


@torch.no_grad()
def from_autoencoder(vae: AutoencoderKL, *, teacher: str, num_blocks: int = 2) -> SubPixelDecoder:
    """Return a decoder whose layers are the first of ``vae``'s own, before its first upsampling; only ``conv_out`` is random.

    ``vae`` has a ``post_quant_conv`` and more blocks there than ``num_blocks``; attention, if it has any, is left out.
    """
    decoder, config = vae.decoder, vae.config
    own = SubPixelDecoder(
        latent_channels=config.latent_channels,
        channels=config.block_out_channels[-1],
        norm_num_groups=config.norm_num_groups,
        num_blocks=num_blocks,
        factor=2 ** (len(config.block_out_channels) - 1),
        scaling_factor=config.scaling_factor,
        teacher=teacher,
    )
    theirs = [*decoder.mid_block.resnets, *decoder.up_blocks[0].resnets]
    layers = [(own.post_quant_conv, vae.post_quant_conv), (own.conv_in, decoder.conv_in), *zip(own.blocks, theirs, strict=False)]
    for layer, source in [*layers, (own.norm_out, theirs[num_blocks].norm1)]:
        layer.load_state_dict(source.state_dict())
    return own
