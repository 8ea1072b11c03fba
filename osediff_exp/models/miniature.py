"""A miniature: the whole picture, reduced to a tile's area, which tells the tiles what they have in common (docs/adr/0010)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from osediff_exp.randomness import torch_generator


def miniature(source: Tensor, *, tile: int, multiple: int, noise: float = 0.0) -> Tensor:
    """Return a picture (1, C, H, W), or its latent, reduced to at most tile^2 pixels; sides are multiples of ``multiple``.

    A picture of fewer pixels keeps its size.

    Args:
        noise: standard deviation of the white noise that ``source`` holds. Reducing averages noise away, and a network that is told a
            timestep must find that timestep's noise: what is lost is added anew, the same for every picture and step.
    """
    height, width = source.shape[-2:]
    ratio = min(1.0, tile / math.sqrt(height * width))
    size = [max(int(side * ratio) // multiple, 1) * multiple for side in (height, width)]
    if size == [height, width]:
        return source
    reduced = _reduced(source.float(), size)
    if noise > 0:
        reduced += noise * _lost_noise(tuple(source.shape), size).to(reduced)
    return reduced.to(source.dtype)


def _reduced(source: Tensor, size: list[int]) -> Tensor:
    return F.interpolate(source, size=size, mode="bicubic", antialias=True)


def _lost_noise(shape: tuple[int, ...], size: list[int]) -> Tensor:
    """Return noise (1, C, h, w) of the variance that standard normal noise of ``shape`` loses when it is reduced to ``size``."""
    generator = torch_generator(0, "miniature")
    kept = _reduced(torch.randn(shape, generator=generator), size).var().clamp(max=1)
    return (1 - kept).sqrt() * torch.randn(shape[0], shape[1], *size, generator=generator)


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
