"""StableSR's time-aware encoder: half a U-Net that looks at the low-quality latent, differently at each timestep."""

from __future__ import annotations

import math
from itertools import pairwise

from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_blocks import AttnDownBlock2D, DownBlock2D, UNetMidBlock2D
from torch import Tensor, nn

_LAYERS, _HEADS, _EPSILON = 2, 4, 1e-5
_ATTENTION_FACTORS = (1, 2, 4)  # attention where the latent is reduced so far


class TimeAwareEncoder(nn.Module):
    """Returns one feature map per level of the U-Net it serves (the paper, section 3.1; released configuration v2-finetune_text_T_512).

    As released: ``width`` channels (256 for Stable Diffusion) in the first two levels and twice as many below, two ResBlocks per level,
    attention of four heads down to a quarter of the latent's size, a middle block, and a ResBlock per level that maps to ``width``
    channels; every ResBlock knows the timestep. The released code sets the number of levels to 4; here it is the U-Net's.

    Args:
        in_channels: of the latent.
        width: of the maps; a multiple of ``groups`` and of 4.
        levels: of the U-Net.
        groups: of every GroupNorm.
    """

    def __init__(self, *, in_channels: int, width: int, levels: int, groups: int) -> None:
        super().__init__()
        embedding = 4 * width
        widths = [width if level < 2 else 2 * width for level in range(levels)]
        self.conv_in = nn.Conv2d(in_channels, width, 3, padding=1)
        self.time_proj = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(width, embedding)
        self.down_blocks = nn.ModuleList(
            _down_block(
                before, after, embedding=embedding, groups=groups, attention=2**level in _ATTENTION_FACTORS, last=level == levels - 1
            )
            for level, (before, after) in enumerate(pairwise([width, *widths]))
        )
        self.mid_block = UNetMidBlock2D(
            in_channels=widths[-1],
            temb_channels=embedding,
            resnet_eps=_EPSILON,
            resnet_groups=groups,
            attention_head_dim=widths[-1] // _HEADS,
        )
        self.to_maps = nn.ModuleList(
            ResnetBlock2D(in_channels=channels, out_channels=width, temb_channels=embedding, groups=groups, eps=_EPSILON)
            for channels in widths
        )

    def forward(self, latent: Tensor, t: Tensor) -> list[Tensor]:
        """Return maps (B, width, h, w), (B, width, h/2, w/2), ... of scaled latents (B, C, h, w) at timesteps t (B,) int64."""
        embedding = self.time_embedding(self.time_proj(t).to(latent.dtype))
        hidden, features = self.conv_in(latent), []
        for block in self.down_blocks:
            hidden, outputs = block(hidden, embedding)
            features.append(outputs[_LAYERS - 1])  # before it is reduced
        features[-1] = self.mid_block(hidden, embedding)
        return [layer(feature, embedding) for layer, feature in zip(self.to_maps, features, strict=True)]


def _down_block(before: int, after: int, *, embedding: int, groups: int, attention: bool, last: bool) -> nn.Module:
    shared = {
        "in_channels": before,
        "out_channels": after,
        "temb_channels": embedding,
        "num_layers": _LAYERS,
        "resnet_eps": _EPSILON,
        "resnet_groups": groups,
    }
    if attention:
        return AttnDownBlock2D(**shared, attention_head_dim=after // _HEADS, downsample_type=None if last else "conv")
    return DownBlock2D(**shared, add_downsample=not last)


def encoder_width(unet_width: int, *, groups: int) -> int:
    """Return the width that has the released proportion to a U-Net's first (256 to 320), as a multiple of ``groups`` and of 4."""
    multiple = math.lcm(groups, _HEADS)
    return max(multiple, unet_width * 4 // 5 // multiple * multiple)
