"""The cleaning network on pictures of any size in bounded memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from osediff_exp.models.tiling import Tiling, blend_tiles, ramp_window, spans

_MULTIPLE = 4  # the network folds its input by 4


@torch.no_grad()
def tiled_clean(network: nn.Module, lq: Tensor, tiling: Tiling) -> Tensor:
    """Return cleaned pictures (B, 3, H, W), float32 where ``lq`` is, of pictures in [-1, 1] on any device.

    Tiles are the VAE encoder's. A network of convolutions alone shares no statistics: beyond the overlap nothing tells a tile from the
    whole picture but what the network sees further away than that.
    """
    weight = next(network.parameters())
    rows, columns = (
        spans(side, tile=tiling.encoder_tile, overlap=tiling.encoder_overlap, multiple=_MULTIPLE, window=ramp_window)
        for side in lq.shape[-2:]
    )
    canvas = torch.zeros(lq.shape, dtype=torch.float32, device=lq.device)
    return blend_tiles(lambda tile: network(tile.to(weight)), lq, canvas=canvas, rows=rows, columns=columns)
