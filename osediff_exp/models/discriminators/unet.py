"""Real-ESRGAN's U-Net discriminator."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from osediff_exp.models.discriminators.spectral import SpectralConv2d


class UNetDiscriminator(nn.Module):
    """One logit per pixel from three halvings of resolution and three doublings with skip sums.

    Wang et al., "Real-ESRGAN", ICCVW 2021, section 3.3.

    Args:
        width: channels of the first layer (64 in the paper, 4.4 M parameters); they double with each halving.
        spectral_norm: normalize all but the first and the last layer (see :class:`SpectralConv2d`).
    """

    def __init__(self, *, width: int, spectral_norm: bool) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        conv = SpectralConv2d if spectral_norm else nn.Conv2d
        pairs = list(pairwise(widths))
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList(conv(a, b, 4, stride=2, padding=1, bias=False) for a, b in pairs)
        self.up = nn.ModuleList(conv(b, a, 3, padding=1, bias=False) for a, b in reversed(pairs))
        self.refine = nn.ModuleList(conv(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.last = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, 1, H, W), large for real, of pictures (B, 3, H, W) in [-1, 1]; H and W multiples of 8."""
        x = _act(self.first(image))
        skips = []
        for layer in self.down:
            skips.append(x)
            x = _act(layer(x))
        for layer, skip in zip(self.up, reversed(skips), strict=True):
            x = _act(layer(F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False))) + skip
        for layer in self.refine:
            x = _act(layer(x))
        return self.last(x)


def _act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)
