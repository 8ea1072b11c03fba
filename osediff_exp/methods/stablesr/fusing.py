"""Controllable feature wrapping (CFW): encoder features of the low-quality picture correct the frozen decoder."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from osediff_exp.methods.carried_maps import CarriedMaps, trainable_input
from osediff_exp.methods.dense_blocks import ResidualDenseBlock

_GROWTH = 32  # of the RRDB, as released


class Fusion(nn.Module):
    """C(encoder, decoder): ResBlock (2c to c), one RRDB, ResBlock (c to c) of the concatenated features (paper, equation 3)."""

    def __init__(self, *, channels: int, groups: int) -> None:
        super().__init__()
        self.first = ResnetBlock2D(in_channels=2 * channels, out_channels=channels, temb_channels=None, groups=groups)
        self.dense = ResidualDenseBlock(channels, growth=_GROWTH)
        self.last = ResnetBlock2D(in_channels=channels, out_channels=channels, temb_channels=None, groups=groups)

    def forward(self, encoded: Tensor, decoded: Tensor) -> Tensor:
        return self.last(self.dense(self.first(torch.cat([encoded, decoded], dim=1), None)), None)


class RememberedBlock(nn.Module):
    """A block of the encoder whose output is kept for the decoder."""

    def __init__(self, block: nn.Module, maps: CarriedMaps, level: int) -> None:
        super().__init__()
        self.block, self.maps, self.level = block, maps, level

    def forward(self, x: Tensor, temb: Tensor | None = None) -> Tensor:
        self.maps[self.level] = output = self.block(x, temb)
        return output


class FusedBlock(nn.Module):
    """A block of the decoder followed by F_d + w C(F_e, F_d); at w = 0 it is the block itself."""

    def __init__(self, block: nn.Module, fusion: Fusion, maps: CarriedMaps, level: int) -> None:
        super().__init__()
        self.block, self.fusion, self.maps, self.level = block, fusion, maps, level
        self.w = 1.0

    def forward(self, x: Tensor, temb: Tensor | None = None) -> Tensor:
        decoded = self.block(x, temb)
        if self.w == 0:
            return decoded
        change = self.fusion(trainable_input(self.maps[self.level]), trainable_input(decoded))
        return decoded + self.w * change.to(decoded.dtype)


def add_fusion(vae: AutoencoderKL) -> None:
    """Put CFW into a view of a VAE, in place: the decoder's features at the inner levels see the encoder's of the same size.

    As released, at the end of each level but the first (full size) and the last; a VAE of two levels has it at the last. Run the encoder
    on the low-quality picture right before the decoder on its latent.
    """
    maps, widths = CarriedMaps(), vae.config.block_out_channels
    count = len(widths)
    for level in range(1, max(2, count - 1)):
        encoder, decoder = vae.encoder.down_blocks[level], vae.decoder.up_blocks[count - 1 - level]
        fusion = Fusion(channels=widths[level], groups=vae.config.norm_num_groups)
        encoder.resnets[-1] = RememberedBlock(encoder.resnets[-1], maps, level)
        decoder.resnets[-1] = FusedBlock(decoder.resnets[-1], fusion, maps, level)


def set_fusion_weight(vae: nn.Module, w: float) -> None:
    """Set w of every fusion: 1 in training, 0.5 at test as released, 0 for the frozen decoder."""
    for block in vae.modules():
        if isinstance(block, FusedBlock):
            block.w = w
