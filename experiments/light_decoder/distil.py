"""Distil a light decoder from a checkpoint's own: ``python experiments/light_decoder/distil.py PHOTOS OUT`` (see README.md).

PHOTOS has ``train`` (to learn from) and ``dev`` (to watch). OUT keeps what the teacher made (the same command goes on where it stopped) and
``light_decoder/``.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from osediff_exp.cli.conf_tree import conf_dir
from osediff_exp.cli.resolvers import register_resolvers

# isort: split
import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor
from torch.nn import functional as F

from osediff_exp.models.backbone import fingerprint_of
from osediff_exp.models.latents import decode_latent, encode_mode
from osediff_exp.models.sub_pixel_decoder import SubPixelDecoder, from_autoencoder
from osediff_exp.restoration.restorer import Restorer
from osediff_exp.runtime import prepare_process, quiet_libraries

SIDE = 256  # of the teacher's pictures, in pixels: its norms and the student's see a whole picture, so none is cut


@torch.no_grad()
def teach(folder: Path, photos: Path, restorer: Restorer, count: int) -> None:
    """Write ``count`` latents and the teacher's pictures of them to ``folder``, in turns of a sharp crop and a restored degraded one.

    An interrupted call goes on where it stopped. ``latents.npy``: float16 (N, C, h, w), scaled; ``pictures.npy``: uint8 (N, 3, SIDE, SIDE).
    """
    backbone, done = restorer.backbone, folder / "done.txt"
    first = int(done.read_text()) if done.is_file() else 0
    if first >= count:
        return
    side, channels = SIDE // backbone.vae_factor, backbone.vae.config.latent_channels
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {"latents": (np.float16, (channels, side, side)), "pictures": (np.uint8, (3, SIDE, SIDE))}
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="r+" if first else "w+", dtype=kind, shape=(count, *shape))
        for name, (kind, shape) in shapes.items()
    }
    pairs = training_pairs(photos)
    for k in range(first, count):
        pair = pairs[k // 2]
        hq = 2 * pair["hq"][None] - 1
        if k % 2 == 0:
            latent = encode_mode(backbone.vae, hq)
            picture = decode_latent(backbone.vae, latent)
        else:
            embeds = backbone.encode_prompts(restorer.prompts(pair["lq"][None], [pair["name"]]))
            made = restorer.generator(2 * pair["lq"][None] - 1, embeds)
            latent, picture = made.latent, made.image
        arrays["latents"][k], arrays["pictures"][k] = latent[0].numpy(), to_bytes(picture[0])
        if k % 2 == 1:
            done.write_text(str(k + 1))
            print(f"{k + 1} of {count} pictures", flush=True)
    done.write_text(str(count))


def training_pairs(photos: Path) -> torch.utils.data.Dataset:
    """Return the training stream of ``photos``: sharp and degraded crops of SIDE px."""
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base=None):
        config = compose("config", ["data=folder", f"data.root={photos}", f"data.crop_size={SIDE}", "data.cache_images=false"])
    data = instantiate(config.data.datamodule, _partial_=True)(
        degradation=instantiate(config.degradation), batch_size=1, seed=config.seed, val_seed=config.data.val_seed
    )
    data.setup("fit")
    return data.train_pairs


def to_bytes(picture: Tensor) -> np.ndarray:
    return picture.add(1).mul(127.5).round().clamp(0, 255).byte().numpy()


def lesson(folder: Path, k: int) -> tuple[Tensor, Tensor]:
    """Return latent (1, C, h, w) and the teacher's picture (1, 3, SIDE, SIDE) in [-1, 1] of number ``k``."""
    latents, pictures = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("latents", "pictures"))
    return torch.from_numpy(latents[k][None].astype(np.float32)), torch.from_numpy(pictures[k][None].astype(np.float32)) / 127.5 - 1


def number_of(folder: Path) -> int:
    return int((folder / "done.txt").read_text())


@torch.no_grad()
def fit_last_layer(decoder: SubPixelDecoder, folder: Path, *, every: int, ridge: float) -> None:
    """Set the last convolution to the least-squares fit of all the teacher's pictures, of one latent pixel in ``every``.

    ``ridge`` is what is added to the normal equations' diagonal, in units of its mean.
    """
    count, size = number_of(folder), decoder.conv_out.weight[0].numel() + 1
    products, targets = torch.zeros(size, size), torch.zeros(size, len(decoder.conv_out.weight))
    for k in range(count):
        latent, picture = lesson(folder, k)
        seen = F.unfold(decoder.features(latent), 3, padding=1)[0, :, k % every :: every]
        seen = torch.cat([seen, torch.ones(1, seen.shape[1])])
        products.addmm_(seen, seen.T)
        targets.addmm_(seen, F.pixel_unshuffle(picture, decoder.config.factor)[0].flatten(1)[:, k % every :: every].T)
        print(f"{k + 1} of {count} pictures are in the fit", flush=True)
    equations = products.double()
    equations += ridge * equations.diagonal().mean() * torch.eye(size)
    weights = torch.linalg.solve(equations, targets.double()).T.float()
    decoder.conv_out.weight.copy_(weights[:, :-1].reshape(decoder.conv_out.weight.shape))
    decoder.conv_out.bias.copy_(weights[:, -1])


@torch.no_grad()
def likeness(decoder: SubPixelDecoder, folder: Path) -> tuple[float, float]:
    """Return the mean PSNR in dB to the teacher's pictures, of sharp crops and of restored ones."""
    psnr = []
    for k in range(number_of(folder)):
        latent, picture = lesson(folder, k)
        psnr.append(-10 * ((decoder(latent).clamp(-1, 1) - picture) / 2).square().mean().log10().item())
    return float(np.mean(psnr[::2])), float(np.mean(psnr[1::2]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--checkpoint", default="embedded:start")
    parser.add_argument("--pictures", type=int, default=120, help="that the teacher makes to learn from")
    parser.add_argument("--blocks", type=int, default=2, help="of the teacher's own that the light decoder keeps, 1 to 3")
    parser.add_argument("--every", type=int, default=3, help="one latent pixel in so many is in the fit")
    parser.add_argument("--ridge", type=float, default=3e-4)
    given = parser.parse_args()
    quiet_libraries()
    prepare_process(seed=0)
    restorer = Restorer.from_checkpoint(given.checkpoint, tiling=None)
    teach(given.out / "dev", given.photos / "dev", restorer, 8)
    teach(given.out / "train", given.photos / "train", restorer, given.pictures)
    vae = restorer.backbone.vae
    student = from_autoencoder(vae, teacher=fingerprint_of(vae.decoder), num_blocks=given.blocks)
    fit_last_layer(student, given.out / "train", every=given.every, ridge=given.ridge)
    student.half().save_pretrained(given.out / "light_decoder")
    print(
        "PSNR to the teacher's pictures of dev, sharp and restored: {:.2f} and {:.2f} dB".format(
            *likeness(student.float(), given.out / "dev")
        )
    )
