"""Decoding with the encoder's features of the low-quality picture (CFW), whole or by tiles."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from osediff_exp.models.miniature import edges_repeated, miniature
from osediff_exp.models.shared_norms import SharedNorms
from osediff_exp.models.tiled_vae import vae_factor
from osediff_exp.models.tiling import Tiling, blend_tiles, ramp_window, spans


def fused_decode(vae: AutoencoderKL, latent: Tensor, lq: Tensor, tiling: Tiling | None = None) -> Tensor:
    """Return pictures (B, 3, H, W), float32, clamped to [-1, 1]; with ``tiling`` they are on the CPU, and no gradient flows.

    Args:
        vae: with fusions (:func:`osediff_exp.methods.stablesr.fusing.add_fusion`).
        latent: scaled, (B, C, h, w).
        lq: low-quality pictures (B, 3, H, W) in [-1, 1]; the encoder's features get no gradient.
        tiling: each tile is decoded right after its part of ``lq`` was encoded.
    """
    z, weight = latent / float(vae.config.scaling_factor), next(vae.parameters())

    def decode(z_tile: Tensor, lq_tile: Tensor) -> Tensor:
        with torch.no_grad():
            vae.encode(lq_tile.to(weight))  # its features wait in the fusions
        return vae.decode(z_tile.to(weight)).sample.float()

    if tiling is None:
        return decode(z, lq).clamp(-1, 1)
    factor = vae_factor(vae)
    tile, overlap = tiling.decoder_tile * factor, tiling.decoder_overlap * factor
    rows, columns = (spans(side * factor, tile=tile, overlap=overlap, multiple=factor, window=ramp_window) for side in z.shape[-2:])
    if len(rows) == len(columns) == 1:
        with torch.no_grad():
            return decode(z, lq).clamp(-1, 1).cpu()
    canvas = torch.zeros(len(z), vae.config.out_channels, rows[-1].stop, columns[-1].stop)
    for k in range(len(z)):  # each picture by itself, so that none depends on its batch
        own, seen, part = z[k : k + 1], lq[k : k + 1], canvas[k : k + 1]
        small = miniature(own, tile=tiling.decoder_tile, multiple=1)
        size = [side * factor for side in small.shape[-2:]]
        norms = SharedNorms(vae)
        with torch.no_grad():
            with norms.measured(), edges_repeated(vae):
                decode(small, F.interpolate(seen.float(), size=size, mode="bicubic", antialias=True))
            with norms.applied():
                blend_tiles(decode, own, seen, canvas=part, rows=rows, columns=columns)
    return canvas.clamp_(-1, 1)
