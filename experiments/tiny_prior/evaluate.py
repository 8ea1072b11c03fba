"""Figures and grids of the embedded tiny backbone: ``python experiments/tiny_prior/evaluate.py PHOTOS`` (PHOTOS has a folder ``val``)."""

import csv
import sys
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image

from osediff_exp.cli.conf_tree import conf_dir
from osediff_exp.cli.resolvers import register_resolvers
from osediff_exp.diffusion import add_noise
from osediff_exp.metrics.sharpness import laplacian_deviation
from osediff_exp.models.backbone import Backbone, load_backbone
from osediff_exp.pretraining.pictures import picture_grid
from osediff_exp.pretraining.sampling import ddim_sample
from osediff_exp.randomness import sample_noise

HERE = Path(__file__).parent
NUM_COLUMNS = 8
DENOISE_FROM = 250


def validation_pairs(photos: Path) -> tuple[list[str], torch.Tensor, torch.Tensor, dict[str, str]]:
    """Return names, LQ and HQ (N, 3, 128, 128) in [0, 1] of the fixed pairs, and the two prompts."""
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base=None):
        config = compose("config", ["data=folder", f"data.root={photos}/val", f"data.val_root={photos}/val", "data.val_size=128"])
    data = instantiate(config.data.datamodule, _partial_=True)(
        degradation=instantiate(config.degradation), batch_size=1, seed=config.seed, val_seed=config.data.val_seed
    )
    data.setup("validate")
    pairs = [data.val_pairs[k] for k in range(len(data.val_pairs))]
    prompts = {"positive": config.prompt.positive, "negative": config.prompt.negative}
    return [pair["name"] for pair in pairs], *(torch.stack([pair[key] for pair in pairs]) for key in ("lq", "hq")), prompts


def encode(backbone: Backbone, images: torch.Tensor) -> torch.Tensor:
    """Return scaled latents."""
    return backbone.vae.encode(2 * images - 1).latent_dist.mode() * backbone.scaling_factor


def decode(backbone: Backbone, latents: torch.Tensor) -> torch.Tensor:
    """Return 8-bit images in [0, 1]."""
    return ((backbone.vae.decode(latents / backbone.scaling_factor).sample + 1) / 2).clamp(0, 1).mul(255).round().div(255)


def grid(rows: list[torch.Tensor]) -> Image.Image:
    """Return a grid of the first columns of each row."""
    return picture_grid([row[:NUM_COLUMNS] for row in rows])


@torch.no_grad()
def main(photos: Path) -> None:
    """Write reconstruction.csv and the grids, print the figures."""
    names, lq, hq, prompts = validation_pairs(photos)
    backbone = load_backbone(sources=["embedded:tiny"])
    restored = torch.cat([decode(backbone, encode(backbone, batch)) for batch in hq.split(5)])
    psnr = -10 * (restored - hq).square().mean(dim=(1, 2, 3)).log10()
    with (HERE / "reconstruction.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "psnr_db"])
        writer.writerows([name, f"{value:.2f}"] for name, value in zip(names, psnr.tolist(), strict=True))
    print(f"VAE reconstruction, RGB PSNR on {len(names)} crops of 128 px: mean {psnr.mean():.2f} dB, worst {psnr.min():.2f} dB")
    grid([hq, restored]).save(HERE / "reconstruction.png")

    positive, negative = (backbone.encode_prompts([prompts[key]] * len(hq)) for key in ("positive", "negative"))
    latents = encode(backbone, lq)
    noise = sample_noise(0, "tiny_prior", 0, list(range(len(hq))), tuple(latents.shape[1:]))
    first = slice(0, NUM_COLUMNS)
    samples = [
        decode(backbone, ddim_sample(backbone, noise[first], positive[first], negative[first], guidance=guidance, num_steps=50))
        for guidance in (1.0, 3.0)
    ]
    grid(samples).save(HERE / "samples.png")
    noisy = add_noise(latents, noise, backbone.schedule.abar(DENOISE_FROM))
    rows = [lq]
    for guidance in (1.0, 3.0, 7.5):
        denoised = ddim_sample(backbone, noisy, positive, negative, guidance=guidance, num_steps=8, start=DENOISE_FROM)
        rows.append(decode(backbone, denoised))
        ratio = laplacian_deviation(rows[-1]) / laplacian_deviation(hq)
        label = f"LQ noised to t = {DENOISE_FROM}, denoised at guidance {guidance:g}"
        print(f"{label}: sharpness {ratio.median():.2f} of the original's (median)")
    print(f"LQ itself: {(laplacian_deviation(lq) / laplacian_deviation(hq)).median():.2f}")
    grid([*rows, hq]).save(HERE / "guidance.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
