"""Spatially adaptive modulation of a frozen U-Net's ResBlocks (SPADE; Park et al., CVPR 2019), as StableSR uses it."""

from __future__ import annotations

from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional as F

from osediff_exp.errors import UserError
from osediff_exp.methods.carried_maps import CarriedMaps, trainable_input


class Spade(nn.Module):
    """h + N(h) * gamma + beta, with N a GroupNorm and gamma, beta 3 x 3 convolutions of ReLU(conv3x3(map)).

    This departs from StableSR's N(h) * (1 + gamma) + beta, which replaces h by N(h): however gamma and beta start, that U-Net is no
    longer the prior. Here gamma and beta start at 0, and step 0 is the prior. ``neutral=False`` has the released formula and random
    gamma and beta.

    Args:
        channels: of h.
        map_channels: of the map.
        hidden: channels between the two convolutions (128 for maps of 256).
        groups: of N.
    """

    def __init__(self, *, channels: int, map_channels: int, hidden: int, groups: int, neutral: bool = True) -> None:
        super().__init__()
        self.neutral = neutral
        self.norm = nn.GroupNorm(groups, channels, eps=1e-5)
        self.shared = nn.Conv2d(map_channels, hidden, 3, padding=1)
        self.gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.beta = nn.Conv2d(hidden, channels, 3, padding=1)
        if neutral:
            for parameter in (*self.gamma.parameters(), *self.beta.parameters()):
                nn.init.zeros_(parameter)

    def forward(self, hidden: Tensor, structure: Tensor) -> Tensor:
        """Return (B, channels, h, w), in the input's type, for ``hidden`` of that shape and a map (B, map_channels, h, w)."""
        inner = F.relu(self.shared(structure))
        h = trainable_input(hidden)
        gamma, beta = self.gamma(inner), self.beta(inner)
        if self.neutral:
            return (h + self.norm(h) * gamma + beta).to(hidden.dtype)
        return (self.norm(h) * (1 + gamma) + beta).to(hidden.dtype)


class ModulatedConv(nn.Module):
    """A ResBlock's second convolution, followed by SPADE with the map of its output's size."""

    def __init__(self, conv: nn.Module, spade: Spade, maps: CarriedMaps) -> None:
        super().__init__()
        self.conv, self.spade, self.maps = conv, spade, maps

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv(x)
        return self.spade(hidden, self.maps[tuple(hidden.shape[-2:])])


def modulate(unet: nn.Module, *, maps: CarriedMaps, map_channels: int, groups: int, neutral: bool = True) -> None:
    """Put SPADE behind the second convolution of every ResBlock of ``unet``, in place: down, middle and up.

    Args:
        unet: of diffusers' ResnetBlock2D; a view of its own (:func:`osediff_exp.models.views.share_frozen`).
        maps: has the map for each (h, w) when the U-Net runs.
        map_channels: of the maps; SPADE's inner width is half of it.
        groups: of SPADE's GroupNorm.

    Raises:
        UserError: the U-Net has no such block.
    """
    blocks = [block for block in unet.modules() if isinstance(block, ResnetBlock2D)]
    if not blocks:
        raise UserError("method=stablesr needs a U-Net of ResnetBlock2D blocks, and this backbone's has none: take another backbone")
    for block in blocks:
        spade = Spade(
            channels=block.conv2.out_channels, map_channels=map_channels, hidden=map_channels // 2, groups=groups, neutral=neutral
        )
        block.conv2 = ModulatedConv(block.conv2, spade, maps)
