"""Binding a conditioned network to its conditions: what the chain sees is a function of latents and timesteps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from osediff_exp.methods.chain.denoising import Denoise
from osediff_exp.models.noise_schedule import NoiseSchedule
from osediff_exp.models.tiled_unet import tiled_denoise
from osediff_exp.models.tiling import Tiling


def noise_in(schedule: NoiseSchedule, t: Tensor | int) -> float:
    """Return sqrt(1 - abar_t), the standard deviation of the noise in z_t; of timesteps (B,) they are all one."""
    return float((1 - schedule.abar(t if isinstance(t, int) else int(t.flatten()[0]))).sqrt())


def bound(
    network: nn.Module,
    prompt_embeds: Tensor,
    *maps: Tensor,
    schedule: NoiseSchedule,
    tiling: Tiling | None = None,
    multiple: int = 1,
    noise: Sequence[float] = (),
) -> Denoise:
    """Return ``network`` with its conditions filled in.

    Args:
        network: ``network(z_t, t, prompt_embeds, *maps)`` returns the prediction (B, C, h, w).
        prompt_embeds: text features (B, L, D).
        maps: what else it sees at the latents' places, (B, ., h, w).
        schedule: of z_t, whose noise tiles must know.
        tiling: run it by tiles (one timestep for all pictures, no gradient); None: whole.
        multiple: of tile sides, for the network's down-sampling.
        noise: standard deviation of the noise in each of ``maps``; those left out have none.
    """
    if tiling is None:
        return lambda z_t, t: network(z_t, t, prompt_embeds, *maps)

    def by_tiles(z_t: Tensor, t: Tensor) -> Tensor:
        def call(embeds: Tensor, tile: Tensor, *others: Tensor) -> Tensor:
            return network(tile, t[: len(tile)], embeds, *others)

        stds = [noise_in(schedule, t), *noise]
        return tiled_denoise(call, prompt_embeds, z_t, *maps, network=network, tiling=tiling, multiple=multiple, noise=stds)

    return by_tiles
