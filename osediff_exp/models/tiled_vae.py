"""The VAE by tiles: any picture in bounded memory, close to what the whole picture gives (docs/adr/0010)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from osediff_exp.models.miniature import edges_repeated, miniature
from osediff_exp.models.shared_norms import SharedNorms
from osediff_exp.models.tiling import Span, Tiling, blend_tiles, ramp_window, spans


def vae_factor(vae: AutoencoderKL) -> int:
    """Return image pixels per latent pixel along one side."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def signed_unit(picture: Tensor) -> Tensor:
    """Return a picture or a tile in [-1, 1]: one of uint8 as float32, 2 (value / 255) - 1."""
    if picture.dtype != torch.uint8:
        return picture
    return picture.to(torch.float32, memory_format=torch.contiguous_format).div_(255).mul_(2).sub_(1)


@torch.no_grad()
def tiled_encode(vae: AutoencoderKL, image: Tensor, tiling: Tiling) -> Tensor:
    """Return the posterior's moments (B, 2C, h, w), on the VAE's device, of ``image`` (B, 3, H, W) in [-1, 1] or uint8 on any device.

    Sides are multiples of the VAE's factor. One tile is the same as ``vae.encode(image).latent_dist.parameters``.
    """
    factor, weight = vae_factor(vae), next(vae.parameters())

    def encode(tile: Tensor) -> Tensor:
        return vae.encode(signed_unit(tile).to(weight)).latent_dist.parameters

    tile, overlap = tiling.encoder_tile // factor, math.ceil(tiling.encoder_overlap / factor)
    rows, columns = (spans(side // factor, tile=tile, overlap=overlap, window=ramp_window) for side in image.shape[-2:])
    if len(rows) == len(columns) == 1:
        return encode(image)
    canvas = torch.zeros(len(image), 2 * vae.config.latent_channels, rows[-1].stop, columns[-1].stop, device=weight.device)
    for picture, part in zip(image.split(1), canvas.split(1), strict=True):
        small = miniature(signed_unit(picture), tile=tile * factor, multiple=factor)
        _fill(part, picture, small, encode, vae.encoder, rows, columns)
    return canvas.to(weight.dtype)


def tiled_decode(vae: AutoencoderKL, latent: Tensor, tiling: Tiling) -> Tensor:
    """Return the image (B, 3, H, W), float32 on the CPU, of ``latent`` (B, C, h, w) in the VAE's own scale; not clamped."""
    weight = next(vae.parameters())

    def decode(tile: Tensor) -> Tensor:
        return vae.decode(tile.to(weight)).sample.float()

    return decode_tiles(decode, latent, tiling, network=vae.decoder, factor=vae_factor(vae))


@torch.no_grad()
def decode_tiles(decode: Callable[[Tensor], Tensor], latent: Tensor, tiling: Tiling, *, network: nn.Module, factor: int) -> Tensor:
    """Return the image (B, 3, H, W), float32 on the CPU, that ``decode`` makes of ``latent`` (B, C, h, w) tile by tile; not clamped.

    ``network`` is what computes in ``decode``: its norms, if it has any, share the statistics of the picture. ``factor`` is H / h.
    """
    rows, columns = (
        spans(
            side * factor, tile=tiling.decoder_tile * factor, overlap=tiling.decoder_overlap * factor, multiple=factor, window=ramp_window
        )
        for side in latent.shape[-2:]
    )
    if len(rows) == len(columns) == 1:
        return decode(latent).cpu()
    canvas = torch.zeros(len(latent), 3, rows[-1].stop, columns[-1].stop)
    for picture, part in zip(latent.split(1), canvas.split(1), strict=True):
        small = miniature(picture, tile=tiling.decoder_tile, multiple=1)
        _fill(part, picture, small, decode, network, rows, columns)
    return canvas


def _fill(
    canvas: Tensor,
    source: Tensor,
    small: Tensor,
    call: Callable[[Tensor], Tensor],
    network: nn.Module,
    rows: list[Span],
    columns: list[Span],
) -> None:
    """Fill one picture's canvas; its miniature gives the statistics, so that it does not depend on its batch."""
    norms = SharedNorms(network)
    if norms.layers:
        with norms.measured(), edges_repeated(network):
            call(small)
    with norms.applied():
        blend_tiles(call, source, canvas=canvas, rows=rows, columns=columns)
