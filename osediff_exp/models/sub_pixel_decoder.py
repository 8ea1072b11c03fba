"""A decoder of latents that computes at the latents' resolution: light, because most of a VAE decoder's work is done at the picture's."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn


class SubPixelDecoder(ModelMixin, ConfigMixin):
    """From scaled latents (B, C, h, w) to pictures (B, 3, h * factor, w * factor), about [-1, 1], not clamped.

    The first layers of an AutoencoderKL's decoder, all at the latents' resolution; then, in place of its upsampling blocks, one convolution
    that gives each latent pixel its factor x factor image pixels (sub-pixel convolution: Shi et al., CVPR 2016). A module of diffusers, so
    that it is saved and loaded as a VAE is.

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
        self.blocks = nn.ModuleList(
            ResnetBlock2D(in_channels=channels, temb_channels=None, groups=norm_num_groups, eps=1e-6) for _ in range(num_blocks)
        )
        self.conv_out = nn.Conv2d(channels, 3 * factor**2, 3, padding=1)
        self.scaling_factor = scaling_factor
        self.pixels = nn.PixelShuffle(factor)

    def features(self, latent: Tensor) -> Tensor:
        """Return what the picture is made of, (B, channels, h, w)."""
        x = self.conv_in(self.post_quant_conv(latent / self.scaling_factor))
        for block in self.blocks:
            x = block(x, None)
        return x

    def forward(self, latent: Tensor) -> Tensor:
        return self.pixels(self.conv_out(self.features(latent)))


@torch.no_grad()
def from_autoencoder(vae: AutoencoderKL, *, teacher: str, num_blocks: int = 2) -> SubPixelDecoder:
    """Return a decoder whose layers are the first of ``vae``'s own, up to its first upsampling; only ``conv_out`` is untrained.

    ``vae`` has a ``post_quant_conv``; attention, if it has any, is left out.
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
    for layer, source in layers:
        layer.load_state_dict(source.state_dict())
    return own
