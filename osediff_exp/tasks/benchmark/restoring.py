"""Restoring a picture of 512 px against the plain way: LoRA unmerged, the prompt encoded every time, the released code's U-Net tiles."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from osediff_exp.checkpoints.named import embedded_names
from osediff_exp.data.images import to_bytes
from osediff_exp.degradations.base import Image
from osediff_exp.models.backbone import load_backbone
from osediff_exp.models.complexity import measure_macs
from osediff_exp.models.empty_backbone import empty_backbone
from osediff_exp.models.generator import OneStepGenerator
from osediff_exp.models.lora_layers import plain_lora
from osediff_exp.models.tiling import Tiling
from osediff_exp.restoration.restorer import AutocastType, Restorer
from osediff_exp.tasks.benchmark.side_by_side import Pair, seconds_of, side_by_side

SCALE = 4


def embedded_restorer(*, decoder: str | None = None, dtype: AutocastType | None = None, plain: bool = False) -> Restorer | None:
    """Return the package's own restorer, or None where this version carries none.

    Args:
        plain: with the layers of PyTorch and diffusers as they are, for :func:`compare_restoring`'s plain way.
    """
    if "embedded" not in embedded_names():
        return None
    backbone = load_backbone(sources=["embedded:tiny"]) if plain else None  # a backbone of the caller's is left as it is
    return Restorer.from_checkpoint("embedded", backbone=backbone, decoder=decoder, dtype=dtype)


def compare_restoring(restorer: Restorer, ours: Restorer, photo: Image, *, rounds: int) -> Pair:
    """Return the seconds for one picture of the size of ``photo`` (H, W, 3), restored from a quarter of it: ``restorer``, with plain
    layers, the plain way, and ``ours``.
    """
    small = small_picture(photo)

    def plain() -> Tensor:
        tiling, restorer.tiling = restorer.tiling, Tiling(unet_tile=96, unet_shared=False)
        restorer.backbone.encode_prompts(["a photo"])  # any text takes as long: prompts are padded
        try:
            with plain_lora():
                return restorer(small, scale=SCALE, names=["photo"])
        finally:
            restorer.tiling = tiling

    return side_by_side(plain, lambda: ours(small, scale=SCALE, names=["photo"]), rounds=rounds)


def levels_apart(restorer: Restorer, other: Restorer, photo: Image) -> float:
    """Return the mean difference of the two restorers' pictures, in levels of 1 / 255."""
    small = small_picture(photo)
    first, second = (one(small, scale=SCALE, names=["photo"]) for one in (restorer, other))
    return float((first.float() - second.float()).abs().mean()) * 255


def small_picture(photo: Image) -> Tensor:
    """Return ``photo`` (H, W, 3) reduced to a quarter of its sides, (1, 3, H/4, W/4) in [0, 1]."""
    height, width = (side // SCALE for side in photo.shape[:2])
    pixels = torch.from_numpy(to_bytes(photo)).permute(2, 0, 1)[None].float() / 255
    return torch.nn.functional.interpolate(pixels, size=(height, width), mode="area")


def batch_gain(restorer: Restorer, photo: Image, *, count: int = 4) -> float:
    """Return how many times faster per picture a batch of ``count`` is than one picture."""
    small = small_picture(photo)
    batch = small.repeat(count, 1, 1, 1)
    pair = side_by_side(
        lambda: restorer(small, scale=SCALE, names=["photo"]), lambda: restorer(batch, scale=SCALE, names=["photo"] * count), rounds=1
    )
    return count * pair.ratio


def shares(restorer: Restorer, photo: Image) -> dict[str, Any]:
    """Return where MACs and time go: the share of encoder, U-Net and decoder in a picture's MACs and in its seconds."""
    side = photo.shape[0]
    macs = measure_parts(side)
    generator: Any = restorer.generator
    lq = torch.nn.functional.interpolate(small_picture(photo), size=(side, side), mode="bicubic") * 2 - 1
    tiling, generator.tiling = generator.tiling, None
    try:
        with torch.inference_mode():
            prompts = restorer.backbone.encode_prompts(["photo"])
            z = generator.encode(lq)
            latent = generator.one_step(z, prompts)
            seconds = {
                "vae_encoder": seconds_of(lambda: generator.encode(lq)),
                "unet": seconds_of(lambda: generator.one_step(z, prompts)),
                "vae_decoder": seconds_of(lambda: generator.decode(latent)),
            }
    finally:
        generator.tiling = tiling
    return {f"restore_macs_{part}": share for part, share in _normalised(macs).items()} | {
        f"restore_seconds_{part}": share for part, share in _normalised(seconds).items()
    }


def measure_parts(side: int) -> dict[str, float]:
    """Return the MACs of the embedded backbone's parts, LoRA merged, for a picture of ``side`` px."""
    backbone = empty_backbone("embedded:tiny")
    with torch.device("meta"):
        generator = OneStepGenerator(backbone=backbone, timestep=200)
    macs = measure_macs(backbone, generator, size=side).merged
    return {part: float(macs[part]) for part in ("vae_encoder", "unet", "vae_decoder")}


def _normalised(parts: dict[str, float]) -> dict[str, float]:
    total = sum(parts.values())
    return {part: value / total for part, value in parts.items()}
