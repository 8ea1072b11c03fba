"""A U-Net by tiles: any latent in bounded memory, close to what the whole latent gives (docs/adr/0010)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from osediff_exp.models.miniature import edges_repeated, miniature
from osediff_exp.models.shared_attention import SharedAttention
from osediff_exp.models.shared_norms import SharedNorms
from osediff_exp.models.tiling import Tiling, blend_tiles, gaussian_window, spans

Predict = Callable[..., Tensor]
"""``predict(prompt_embeds, *tiles)`` returns (N, C, h, w) for prompt_embeds (N, L, D) and tiles (N, ., h, w)."""


@torch.no_grad()
def tiled_denoise(
    predict: Predict,
    prompt_embeds: Tensor,
    *maps: Tensor,
    network: nn.Module,
    tiling: Tiling,
    multiple: int,
    noise: Sequence[float] = (),
) -> Tensor:
    """Return the prediction (B, C, h, w), float32 on the latents' device, for ``maps[0]``, tile by tile; a sampler calls it once a step.

    Args:
        predict: calls the network once, at a timestep it knows, perhaps with a control network. Guidance takes a :func:`tiled_denoise`
            for each prompt.
        prompt_embeds: (B, L, D).
        maps: latents (B, C, h, w), then whatever else the network sees at their places (an encoded condition, a mask).
        network: everything that ``predict`` calls.
        multiple: of tile sides, for the network's down-sampling.
        noise: standard deviation of the white noise in each of ``maps``, a sampler's z_t before all; those left out have none.
    """
    rows, columns = (
        spans(side, tile=tiling.unet_side, overlap=tiling.unet_overlap, multiple=multiple, window=gaussian_window)
        for side in maps[0].shape[-2:]
    )
    if len(rows) == len(columns) == 1:
        return predict(prompt_embeds, *maps).float()
    canvas = torch.zeros_like(maps[0], dtype=torch.float32)
    ratio = canvas[0, 0].numel() / (rows[0].size * columns[0].size)
    for k in range(len(canvas)):  # each picture by itself, so that none depends on its batch

        def call(*tiles: Tensor, embeds: Tensor = prompt_embeds[k : k + 1]) -> Tensor:
            return predict(embeds, *tiles)

        own, part = [source[k : k + 1] for source in maps], canvas[k : k + 1]
        if not tiling.unet_shared:
            blend_tiles(call, *own, canvas=part, rows=rows, columns=columns)
            continue
        stds = [*noise, *[0.0] * (len(own) - len(noise))]
        small = [miniature(source, tile=tiling.unet_side, multiple=multiple, noise=std) for source, std in zip(own, stds, strict=True)]
        with _sharing(network, partial(call, *small), ratio=ratio):
            blend_tiles(call, *own, canvas=part, rows=rows, columns=columns)
    return canvas


@contextmanager
def _sharing(network: nn.Module, measure: Callable[[], object], *, ratio: float) -> Iterator[None]:
    """Let tiles use the normalisation, keys and values that ``measure`` brings about; ``ratio``: the picture's area over a tile's."""
    norms, attention = SharedNorms(network), SharedAttention(network)
    with norms.measured(), attention.measured(), edges_repeated(network):
        measure()
    with norms.applied(), attention.applied(ratio=ratio):
        yield
