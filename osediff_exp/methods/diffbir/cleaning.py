"""DiffBIR's first stage: a network that removes degradations and invents nothing."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from osediff_exp.errors import UserError
from osediff_exp.methods.dense_blocks import ResidualDenseBlock

_FACTOR = 4


class CleaningNetwork(nn.Module):
    """An RRDB network on the enlarged low-quality picture, trained with plain MSE (DiffBIR, section 3.1).

    DiffBIR trains a SwinIR of 15.8 M parameters (embedding 180, 8 groups of 6 layers, window 8, unshuffle 8), and takes BSRNet, an RRDB
    network of 16.7 M, for super-resolution. This one is BSRNet's kind in a compact size: 0.77 M parameters at 32 channels, growth 16
    and 4 blocks; 64, 32 and 23 are BSRNet's. As the input is enlarged already, it is folded to a quarter of its sides (pixel unshuffle)
    and unfolded by nearest neighbours and convolutions. It departs from both in that its output is added to its input and starts at 0:
    an untrained network changes nothing, and a short training cannot do worse than that for long.

    Args:
        channels: of the features.
        growth: of the dense blocks.
        blocks: number of RRDBs.

    Raises:
        UserError: one of them is below 1.
    """

    def __init__(self, *, channels: int = 32, growth: int = 16, blocks: int = 4) -> None:
        super().__init__()
        if min(channels, growth, blocks) < 1:
            raise UserError(f"the cleaning network's channels={channels}, growth={growth} and blocks={blocks} must be at least 1")
        self.first = nn.Conv2d(3 * _FACTOR**2, channels, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualDenseBlock(channels, growth=growth) for _ in range(blocks)))
        self.after = nn.Conv2d(channels, channels, 3, padding=1)
        self.unfold = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.refine = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, 3, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, lq: Tensor) -> Tensor:
        """Return cleaned pictures of enlarged low-quality ones, both (B, 3, H, W) in [-1, 1] (not clamped); any H and W."""
        height, width = lq.shape[-2:]
        padded = F.pad(lq.float(), (0, -width % _FACTOR, 0, -height % _FACTOR), mode="replicate")
        features = self.first(F.pixel_unshuffle(padded, _FACTOR))
        features = features + self.after(self.blocks(features))
        for layer in self.unfold:
            features = F.leaky_relu(layer(F.interpolate(features, scale_factor=2.0, mode="nearest")), 0.2)
        return lq + self.last(F.leaky_relu(self.refine(features), 0.2))[..., :height, :width]


def cleaning_loss(network: nn.Module, lq: Tensor, hq: Tensor) -> Tensor:
    """Return the mean squared error between cleaned and true pictures, (B, 3, H, W) in [-1, 1], at output size."""
    return F.mse_loss(network(lq).float(), hq.float())
