"""Which frequencies an autoencoder passes: ``python experiments/tiny_prior/amplitude.py PHOTOS VAE ...`` (folders).

Prints, for D(E(x)) on the centres of 128 px of the second crop of each photo, the amplitude relative to the original by frequency.
"""

import sys
from pathlib import Path

import osediff_exp  # isort: skip  # noqa: F401  makes torchvision importable before diffusers asks for it
import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

SIDE = 128
BANDS = ((4, 12), (12, 20), (20, 28), (28, 65))  # cycles per SIDE


def spectrum(images: torch.Tensor) -> torch.Tensor:
    """Return the mean power by cycles per SIDE, over rows and columns, of images (N, 3, SIDE, SIDE)."""
    grey = images.mean(dim=1)
    rows, columns = (torch.fft.rfft(grey, dim=dim).abs().square() for dim in (-1, -2))
    return (rows.mean(dim=(0, 1)) + columns.mean(dim=(0, 2))) / 2


@torch.no_grad()
def main(photos: Path, folders: list[str]) -> None:
    """Print a line for each VAE."""
    box = tuple((512 - SIDE) // 2 + shift for shift in (0, 0, SIDE, SIDE))
    crops = [np.asarray(Image.open(path).convert("RGB").crop(box)) for path in sorted((photos / "val").glob("*_1.jpg"))]
    x = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 127.5 - 1
    for folder in folders:
        vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).eval()
        y = torch.cat([vae.decode(vae.encode(part).latent_dist.mode()).sample for part in x.split(6)]).clamp(-1, 1)
        psnr = (-10 * ((y - x) / 2).square().mean(dim=(1, 2, 3)).log10()).mean()
        ratios = [float((spectrum(y)[a:b].mean() / spectrum(x)[a:b].mean()).sqrt()) for a, b in BANDS]
        bands = ", ".join(f"{a / SIDE:.2f} to {b / SIDE:.2f}: {ratio:.2f}" for (a, b), ratio in zip(BANDS, ratios, strict=True))
        print(f"{folder}: {psnr:.2f} dB; cycles per px {bands}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
