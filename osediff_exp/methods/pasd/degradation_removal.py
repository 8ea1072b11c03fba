"""PASD's degradation removal: the control net's pixel embedding, made to look like the clean picture at every scale."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Removed(NamedTuple):
    """``embedding`` (B, C, h, w) for the control net; ``rgbs``: a picture (B, 3, H/2^k, W/2^k) at each scale, the largest first."""

    embedding: Tensor
    rgbs: list[Tensor]


class DegradationRemoval(nn.Module):
    """Pixels (B, 3, H, W) in [0, 1] to :class:`Removed` (paper, section 3.2; the released control net's condition embedding).

    A convolution, then at each scale one that keeps size and channels and one of stride 2, SiLU behind each; a head of three channels
    reads the features after each stride. The last convolution is zero, so that at first nothing reaches the control net.

    Args:
        widths: channels at each scale; (16, 32, 96, 256) for three strides.
        num_channels: of the embedding: those of the control net's first layer.
    """

    def __init__(self, *, widths: Sequence[int], num_channels: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        pairs = list(pairwise(widths))
        self.keeps = nn.ModuleList(nn.Conv2d(inputs, inputs, 3, padding=1) for inputs, _ in pairs)
        self.strides = nn.ModuleList(nn.Conv2d(inputs, outputs, 3, padding=1, stride=2) for inputs, outputs in pairs)
        self.heads = nn.ModuleList(nn.Conv2d(outputs, 3, 3, padding=1) for _, outputs in pairs)
        self.conv_out = nn.Conv2d(widths[-1], num_channels, 3, padding=1)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, pixels: Tensor) -> Removed:
        features, rgbs = F.silu(self.conv_in(pixels)), []
        for keep, stride, head in zip(self.keeps, self.strides, self.heads, strict=True):
            features = F.silu(stride(F.silu(keep(features))))
            rgbs.append(head(features))
        return Removed(self.conv_out(features), rgbs)


def removal_loss(rgbs: Sequence[Tensor], target: Tensor) -> Tensor:
    """Return the sum over scales of mean |head - target resized|, bilinear without smoothing, as in the released training.

    Args:
        rgbs: (B, 3, H/2^k, W/2^k).
        target: the ground truth (B, 3, H, W) in [-1, 1], which is therefore the heads' range too.
    """
    resized = (F.interpolate(target.float(), size=rgb.shape[-2:], mode="bilinear", align_corners=False) for rgb in rgbs)
    return torch.stack([F.l1_loss(rgb.float(), scaled) for rgb, scaled in zip(rgbs, resized, strict=True)]).sum()
