"""Binding a conditioned network to its conditions: what the chain sees is a function of latents and timesteps."""

from __future__ import annotations

from torch import Tensor, nn

from osediff_exp.methods.chain.denoising import Denoise
from osediff_exp.models.tiled_unet import tiled_denoise
from osediff_exp.models.tiling import Tiling


def bound(network: nn.Module, prompt_embeds: Tensor, *maps: Tensor, tiling: Tiling | None = None, multiple: int = 1) -> Denoise:
    """Return ``network`` with its conditions filled in.

    Args:
        network: ``network(z_t, t, prompt_embeds, *maps)`` returns the prediction (B, C, h, w).
        prompt_embeds: text features (B, L, D).
        maps: what else it sees at the latents' places, (B, ., h, w).
        tiling: run it by tiles (one timestep for all pictures, no gradient); None: whole.
        multiple: of tile sides, for the network's down-sampling.
    """
    if tiling is None:
        return lambda z_t, t: network(z_t, t, prompt_embeds, *maps)

    def by_tiles(z_t: Tensor, t: Tensor) -> Tensor:
        def call(embeds: Tensor, tile: Tensor, *others: Tensor) -> Tensor:
            return network(tile, t[: len(tile)], embeds, *others)

        return tiled_denoise(call, prompt_embeds, z_t, *maps, network=network, tiling=tiling, multiple=multiple)

    return by_tiles
