"""ESRGAN's dense blocks (Wang et al., ECCVW 2018, figure 4), of which restoration networks are built."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_RESIDUAL_SCALE = 0.2


class DenseBlock(nn.Module):
    """Five 3 x 3 convolutions, each of which sees all earlier outputs; x + .2 of the last.

    Args:
        channels: of x.
        growth: channels that each of the first four adds.
    """

    def __init__(self, channels: int, *, growth: int) -> None:
        super().__init__()
        inputs = [channels + k * growth for k in range(5)]
        outputs = [growth] * 4 + [channels]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(inputs, outputs, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for layer in self.layers[:-1]:
            seen = torch.cat([seen, F.leaky_relu(layer(seen), 0.2)], dim=1)
        return x + _RESIDUAL_SCALE * self.layers[-1](seen)


class ResidualDenseBlock(nn.Module):
    """RRDB: x + .2 times what three dense blocks make of x (so 1.2 x where they change nothing)."""

    def __init__(self, channels: int, *, growth: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(DenseBlock(channels, growth=growth) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        return x + _RESIDUAL_SCALE * self.blocks(x)
