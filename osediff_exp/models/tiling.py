"""Tiles: networks see pieces of a picture, a weighted sum puts their outputs together, and memory stays bounded (docs/adr/0010)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from osediff_exp.errors import UserError

_SMALLEST = {"encoder_tile": 128, "decoder_tile": 16, "unet_tile": 16}
_RELEASED_UNET_TILE = 96  # latent pixels: 768 image pixels of Stable Diffusion
_WHOLE_PIXELS = 512  # that Stable Diffusion was trained on
_GAUSSIAN_VARIANCE = 0.01  # in units of the tile's side, as in the released code


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """The largest pieces that the networks see, and how far neighbours overlap at least.

    Sizes are rounded to what a network takes (tiles down, overlaps up); pieces are made equally large, so they are often smaller.
    The default tiles are the released code's: VAE 1024 px and 224 latent px, U-Net 96 with overlap 32 (see ``unet_tile``).

    Attributes:
        encoder_tile, encoder_overlap: of the VAE's encoder, image pixels.
        decoder_tile, decoder_overlap: of the VAE's decoder, latent pixels.
        unet_tile, unet_overlap: of the U-Net, latent pixels; ``unet_tile`` None: 96, but pictures of up to 512 px are one tile whatever the
            VAE's factor (:meth:`settled`). At a factor of 4 such a picture would be four tiles and a miniature, which take twice the time.
        unet_shared: U-Net tiles share normalisation and attend to a miniature of the rest of the picture too, which comes nearer to the
            untiled result; False: each tile for itself, as in the released code, in less time.

    Raises:
        UserError: for tiles too small, or overlaps that are negative or more than half a tile.
    """

    encoder_tile: int = 1024
    encoder_overlap: int = 128
    decoder_tile: int = 224
    decoder_overlap: int = 32
    unet_tile: int | None = None
    unet_overlap: int = 32
    unet_shared: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            if type(value) is not (bool if isinstance(field.default, bool) else int):
                kind = "true or false" if isinstance(field.default, bool) else "a whole number"
                raise UserError(f"tiling.{field.name}={value} is not {kind}: give one, such as {field.default}")
        for network in ("encoder", "decoder", "unet"):
            tile = self.unet_side if network == "unet" else getattr(self, f"{network}_tile")
            overlap = getattr(self, f"{network}_overlap")
            if tile < _SMALLEST[f"{network}_tile"]:
                raise UserError(f"tiling.{network}_tile={tile} is too small: give at least {_SMALLEST[f'{network}_tile']}")
            if not 0 <= 2 * overlap <= tile:
                raise UserError(f"tiling.{network}_overlap={overlap} does not fit tiles of {tile}: give 0 to {tile // 2}")

    @property
    def unet_side(self) -> int:
        """The U-Net's tiles, in latent pixels."""
        return _RELEASED_UNET_TILE if self.unet_tile is None else self.unet_tile

    def settled(self, *, side: int, factor: int) -> Tiling:
        """Return the same with ``unet_tile``, where it is None, chosen for pictures whose longer side is ``side`` image pixels.

        ``factor``: the VAE's image pixels per latent pixel.
        """
        if self.unet_tile is not None or side > _WHOLE_PIXELS:
            return self
        return replace(self, unet_tile=max(_RELEASED_UNET_TILE, _WHOLE_PIXELS // factor))


@dataclass(frozen=True)
class Span:
    """Where one row or column of tiles lies, and its share (stop - start,) of the sum at each place; shares sum to 1."""

    start: int
    stop: int
    share: Tensor

    @property
    def size(self) -> int:
        return self.stop - self.start


Window = Callable[[int, int], Tensor]
"""``window(size, overlap)`` returns the weights (size,) of a tile, before they are made to sum to 1 with its neighbours'."""


def gaussian_window(size: int, overlap: int) -> Tensor:
    """Return exp(-x^2 / (2 * 0.01)), x from the tile's centre in units of its side: the released code's weights."""
    x = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) / size
    return torch.exp(-x.square() / (2 * _GAUSSIAN_VARIANCE))


def ramp_window(size: int, overlap: int) -> Tensor:
    """Return 0 over the outer third of an overlap, where the network misses the surroundings, a ramp over the next third, then 1."""
    depth = torch.arange(size, dtype=torch.float64) + 0.5
    rising = (3 * depth / max(overlap, 1) - 1).clamp(0, 1)
    return torch.minimum(rising, rising.flip(0))


def spans(length: int, *, tile: int, overlap: int, multiple: int = 1, window: Window) -> list[Span]:
    """Cover 0..length with equal pieces of at most ``tile`` that overlap by at least ``overlap``.

    Starts and sizes are multiples of ``multiple`` where ``length`` is one. One piece if ``length`` is no more than ``tile``.
    """
    if length <= tile:
        return [Span(0, length, torch.ones(length))]
    overlap = math.ceil(overlap / multiple) * multiple
    tile = max(tile // multiple * multiple, overlap + multiple)
    count = math.ceil((length - overlap) / (tile - overlap))
    size = math.ceil((length + (count - 1) * overlap) / count / multiple) * multiple
    starts = [k * (length - size) // (count - 1) // multiple * multiple for k in range(count)]
    weights = [_edge_weights(window(size, overlap), first=k == 0, last=k == count - 1) for k in range(count)]
    total = torch.zeros(length, dtype=torch.float64)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + size] += weight
    return [Span(a, a + size, (w / total[a : a + size]).float()) for a, w in zip(starts, weights, strict=True)]


def _edge_weights(weight: Tensor, *, first: bool, last: bool) -> Tensor:
    """Return the weights with no fall towards an edge of the picture, where a tile misses nothing."""
    middle = len(weight) // 2
    weight = weight.clone()
    if first:
        weight[:middle] = weight[middle]
    if last:
        weight[middle:] = weight[middle]
    return weight


@torch.no_grad()
def blend_tiles(call: Callable[..., Tensor], *sources: Tensor, canvas: Tensor, rows: list[Span], columns: list[Span]) -> Tensor:
    """Add ``call``'s outputs for each tile of ``sources``, weighted, to ``canvas``, in place; one tile at a time is in memory.

    Args:
        call: takes a tile of each source, returns (B, C, h, w).
        sources: maps of the same picture; each may have a scale of its own, a whole multiple or part of the canvas's.
        canvas: (B, C, H, W), zeros, on any device.
        rows, columns: where the tiles lie on the canvas.
    """
    for row in rows:
        for column in columns:
            output = call(*(_cut(source, row, column, canvas) for source in sources))
            share = row.share[:, None] * column.share
            canvas[..., row.start : row.stop, column.start : column.stop] += output.to(canvas) * share.to(canvas)
    return canvas


def _cut(source: Tensor, row: Span, column: Span, canvas: Tensor) -> Tensor:
    (height, width), (h, w) = canvas.shape[-2:], source.shape[-2:]
    return source[..., row.start * h // height : row.stop * h // height, column.start * w // width : column.stop * w // width]
