"""A miniature: the whole picture, reduced to a tile's area, which tells the tiles what they have in common (docs/adr/0010)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn import functional as F


def miniature(source: Tensor, *, tile: int, multiple: int) -> Tensor:
    """Return a picture (1, C, H, W), or its latent, reduced to at most tile^2 pixels; sides are multiples of ``multiple``.

    A picture of fewer pixels keeps its size.
    """
    height, width = source.shape[-2:]
    ratio = min(1.0, tile / math.sqrt(height * width))
    size = [max(int(side * ratio) // multiple, 1) * multiple for side in (height, width)]
    if size == [height, width]:
        return source
    return F.interpolate(source.float(), size=size, mode="bicubic", antialias=True).to(source.dtype)


@contextmanager
def edges_repeated(network: nn.Module) -> Iterator[None]:
    """Let convolutions repeat the pixels at an edge, where they would see zeros: a miniature has more edge than its picture."""
    convolutions = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    layers = [layer for layer in convolutions if layer.padding_mode == "zeros" and layer.padding != (0, 0)]
    for layer in layers:
        layer.padding_mode = "replicate"
    try:
        yield
    finally:
        for layer in layers:
            layer.padding_mode = "zeros"
