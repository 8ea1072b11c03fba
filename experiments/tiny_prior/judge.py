"""Judge a backbone as VSD uses it: ``python experiments/tiny_prior/judge.py PHOTOS [BACKBONE]`` (PHOTOS has ``val``; embedded:tiny).

Prints Markdown: the VAE's reconstruction; the loss at each t with the right words, the positive prompt alone and another photo's words;
and, for low-quality pictures noised to t and denoised under guidance, FD, KID and sharpness against the originals.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from osediff_exp.cli.conf_tree import conf_dir
from osediff_exp.cli.resolvers import register_resolvers
from osediff_exp.photo_units import photos_of

# isort: split
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor

from osediff_exp.diffusion import add_noise, predict_x0
from osediff_exp.metrics.fd import FD
from osediff_exp.metrics.kid import KID
from osediff_exp.metrics.sharpness import laplacian_deviation
from osediff_exp.metrics.st_lpips import STLPIPS
from osediff_exp.models.backbone import Backbone, load_backbone
from osediff_exp.pretraining.captions import content_words
from osediff_exp.pretraining.sampling import ddim_sample
from osediff_exp.randomness import sample_noise

CROPS_PER_PHOTO = 2
SIDE = 128
GUIDANCES = (1.0, 2.0, 3.0, 5.0)
TIMESTEPS = (50, 100, 200, 300, 500, 700, 900)
STEPS = 8


def pairs(photos: Path) -> tuple[list[str], Tensor, Tensor, dict[str, str]]:
    """Return names, LQ and HQ (N, 3, SIDE, SIDE) in [0, 1] of the fixed validation pairs, some of each photo, and the two prompts."""
    register_resolvers()
    keys = ["data=folder", f"data.root={photos}/val", f"data.val_root={photos}/val", f"data.val_size={SIDE}"]
    with initialize_config_dir(str(conf_dir()), version_base=None):
        config = compose("config", keys)
    data = instantiate(config.data.datamodule, _partial_=True)(
        degradation=instantiate(config.degradation), batch_size=1, seed=config.seed, val_seed=config.data.val_seed
    )
    data.setup("validate")
    found = [data.val_pairs[k] for k in range(len(data.val_pairs))]
    photo, taken, kept = photos_of([pair["name"] for pair in found]), {}, []
    for pair in found:
        taken[photo[pair["name"]]] = taken.get(photo[pair["name"]], 0) + 1
        if taken[photo[pair["name"]]] <= CROPS_PER_PHOTO:
            kept.append(pair)
    prompts = {"positive": config.prompt.positive, "negative": config.prompt.negative}
    return [pair["name"] for pair in kept], *(torch.stack([pair[key] for pair in kept]) for key in ("lq", "hq")), prompts


def encode(backbone: Backbone, images: Tensor) -> Tensor:
    """Return scaled latents."""
    return torch.cat([backbone.vae.encode(2 * part - 1).latent_dist.mode() for part in images.split(8)]) * backbone.scaling_factor


def decode(backbone: Backbone, latents: Tensor) -> Tensor:
    """Return 8-bit images in [0, 1]."""
    images = torch.cat([backbone.vae.decode(part / backbone.scaling_factor).sample for part in latents.split(8)])
    return ((images + 1) / 2).clamp(0, 1).mul(255).round().div(255)


def row(label: str, images: Tensor, hq: Tensor) -> str:
    """Return a row of the table: FD, KID with its standard error, ST-LPIPS, sharpness and PSNR against the originals."""
    fd, kid, distance = FD(), KID(), STLPIPS()
    fd.update(images, hq)
    kid.update(images, hq)
    distance.update(images, hq)
    value = float(kid.compute())
    error = float(kid.contributions.std() / len(hq) ** 0.5)
    sharp = float((laplacian_deviation(images) / laplacian_deviation(hq)).median())
    psnr = float((-10 * (images - hq).square().mean(dim=(1, 2, 3)).log10()).mean())
    figures = f"{float(fd.compute()):.2f} | {value:.3f} +- {error:.3f} | {float(distance.compute()):.3f} | {sharp:.2f} | {psnr:.2f}"
    return f"| {label} | {figures} |"


def loss(backbone: Backbone, latents: Tensor, text: Tensor, t: int) -> Tensor:
    """Return the loss of each picture (N,) at timestep ``t``, with fixed noise."""
    abar = backbone.schedule.abar(t)
    losses = []
    for start in range(0, len(latents), 16):
        z, c = latents[start : start + 16], text[start : start + 16]
        eps = sample_noise(0, "judge", t, list(range(start, start + len(z))), tuple(z.shape[1:]))
        losses.append((backbone.unet(add_noise(z, eps, abar), t, c).sample - eps).square().mean(dim=(1, 2, 3)))
    return torch.cat(losses)


@torch.no_grad()
def main(photos: Path, source: str) -> None:
    """Print the three tables."""
    names, lq, hq, prompts = pairs(photos)
    backbone = load_backbone(sources=[source])
    z_hq, z_lq = encode(backbone, hq), encode(backbone, lq)
    print(f"{len(names)} crops of {len(set(photos_of(names).values()))} photos, {SIDE} px, backbone {source}\n")

    titles = ["castle" if not content_words(name) else ", ".join(content_words(name)) for name in names]
    others = titles[len(titles) // 2 :] + titles[: len(titles) // 2]
    texts = {
        "positive prompt": [prompts["positive"]] * len(names),
        "own words": [f"{title}, {prompts['positive']}" for title in titles],
        "another photo's words": [f"{title}, {prompts['positive']}" for title in others],
        "negative prompt": [prompts["negative"]] * len(names),
        "no text": [""] * len(names),
    }
    print("| eps loss of originals, by text | " + " | ".join(f"t = {t}" for t in TIMESTEPS) + " |\n|---|" + "---:|" * len(TIMESTEPS))
    for label, prompt in texts.items():
        embeds = backbone.encode_prompts(prompt)
        print(f"| {label} | " + " | ".join(f"{float(loss(backbone, z_hq, embeds, t).mean()):.4f}" for t in TIMESTEPS) + " |", flush=True)

    positive, negative = (backbone.encode_prompts([prompts[key]] * len(names)) for key in ("positive", "negative"))
    noise = sample_noise(1, "judge", 0, list(range(len(names))), tuple(z_lq.shape[1:]))
    print("\n| pictures against their originals | FD | KID | ST-LPIPS | sharpness | PSNR |\n|---|---:|---:|---:|---:|---:|")
    print(row("LQ, enlarged", lq, hq))
    print(row("D(E(original))", decode(backbone, z_hq), hq), flush=True)
    for t in (100, 250, 500):
        abar = backbone.schedule.abar(t)
        noisy = add_noise(z_lq, noise, abar)
        outputs = torch.cat([backbone.unet(z, t, c).sample for z, c in zip(noisy.split(16), positive.split(16), strict=True)])
        one_step = predict_x0(noisy, outputs, abar, "epsilon")
        print(row(f"LQ noised to t = {t}, x0 in one step", decode(backbone, one_step), hq), flush=True)
        for guidance in GUIDANCES if t > 100 else ():
            parts = zip(noisy.split(16), positive.split(16), negative.split(16), strict=True)
            denoised = [ddim_sample(backbone, z, p, n, guidance=guidance, num_steps=STEPS, start=t) for z, p, n in parts]
            print(row(f"LQ noised to t = {t}, {STEPS} steps, guidance {guidance:g}", decode(backbone, torch.cat(denoised)), hq), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "embedded:tiny")
