"""How near do tiles of a noisy latent come to the whole? ``python experiments/tiling/noisy.py PHOTOS`` (a folder; its first three).

Prints a Markdown table: rms difference of the embedded prior's eps from the untiled one, by timestep, for the ways to make a miniature.
"""

import sys
from pathlib import Path

from osediff_exp.models.backbone import load_backbone

# isort: split
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from osediff_exp.diffusion import add_noise
from osediff_exp.methods.chain.binding import noise_in
from osediff_exp.models import tiled_unet
from osediff_exp.models.miniature import miniature
from osediff_exp.models.tiling import Tiling
from osediff_exp.randomness import torch_generator

SIDE, TILE, OVERLAP, PHOTOS = 256, 24, 8, 3
TIMESTEPS = (999, 700, 400, 200, 100, 20)


def nearest(source: Tensor, *, tile: int, multiple: int, noise: float) -> Tensor:
    """Return a miniature of single pixels, which keep their noise."""
    size = miniature(source, tile=tile, multiple=multiple).shape[-2:]
    return F.interpolate(source, size=size, mode="nearest-exact")


def without_noise(source: Tensor, *, tile: int, multiple: int, noise: float) -> Tensor:
    """Return a miniature whose noise is averaged away."""
    return miniature(source, tile=tile, multiple=multiple)


@torch.no_grad()
def main(folder: Path) -> None:
    backbone = load_backbone(sources=["embedded:tiny"])
    text = backbone.encode_prompts(["a sharp photo"])
    latents = []
    for path in sorted(folder.iterdir())[:PHOTOS]:
        photo = np.array(Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS))
        image = torch.from_numpy(photo).permute(2, 0, 1)[None] / 127.5 - 1
        latents.append(backbone.vae.encode(image).latent_dist.mode() * backbone.scaling_factor)
    ways = {
        "tiles each for itself": (miniature, False),
        "miniature without its noise": (without_noise, True),
        "taken by nearest pixels": (nearest, True),
        "with the lost noise": (miniature, True),
    }
    print("| t | " + " | ".join(map(str, TIMESTEPS)) + " |\n|---" + "|---:" * len(TIMESTEPS) + "|")
    for name, (way, shared) in ways.items():
        tiled_unet.miniature = way
        tiling, row = Tiling(unet_tile=TILE, unet_overlap=OVERLAP, unet_shared=shared), []
        for t in TIMESTEPS:
            squares = []
            for k, z0 in enumerate(latents):
                z_t = add_noise(z0, torch.randn(z0.shape, generator=torch_generator(k, "noisy")), backbone.schedule.abar(t))
                predict = lambda embeds, z, t=t: backbone.unet(z, torch.full((len(z),), t), embeds).sample  # noqa: E731
                call = {"network": backbone.unet, "tiling": tiling, "multiple": 4, "noise": [noise_in(backbone.schedule, t)]}
                squares.append((tiled_unet.tiled_denoise(predict, text, z_t, **call) - predict(text, z_t)).square().mean())
            row.append(f"{torch.stack(squares).mean().sqrt():.3f}".lstrip("0"))
        print(f"| {name} | " + " | ".join(row) + " |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
