"""Distil a light decoder from a checkpoint's own: ``python experiments/light_decoder/distil.py PHOTOS OUT`` (see README.md).

PHOTOS has ``train`` (to learn from) and ``dev`` (to watch). OUT keeps what the teacher made, the state of the training (the same command
goes on with it) and, after every validation, ``light_decoder/`` with the averaged weights.
"""

from __future__ import annotations

import argparse
import copy
import csv
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

from osediff_exp.callbacks.ema import warmed_up_decay
from osediff_exp.models.backbone import fingerprint_of
from osediff_exp.models.latents import decode_latent, encode_mode
from osediff_exp.models.sub_pixel_decoder import SubPixelDecoder, from_autoencoder
from osediff_exp.pretraining.schedule import cosine_with_warmup
from osediff_exp.randomness import numpy_generator
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
def fit_last_layer(decoder: SubPixelDecoder, folder: Path, *, pictures: int = 16, every: int = 5) -> None:
    """Set the last convolution to the least-squares fit of the teacher's pictures: training starts from there."""
    products: Tensor | float = 0.0
    targets: Tensor | float = 0.0
    for k in range(pictures):
        latent, picture = lesson(folder, k)
        seen = F.unfold(decoder.features(latent), 3, padding=1)[0, :, ::every].double()
        seen = torch.cat([seen, torch.ones(1, seen.shape[1]).double()])
        wanted = F.pixel_unshuffle(picture, decoder.config.factor)[0].flatten(1)[:, ::every].double()
        products, targets = products + seen @ seen.T, targets + seen @ wanted.T
    weights = torch.linalg.solve(products + 1e-4 * products.diagonal().mean() * torch.eye(len(products)), targets).T.float()
    decoder.conv_out.weight.copy_(weights[:, :-1].view_as(decoder.conv_out.weight))
    decoder.conv_out.bias.copy_(weights[:, -1])


@torch.no_grad()
def likeness(decoder: SubPixelDecoder, folder: Path) -> tuple[float, float]:
    """Return the mean PSNR in dB to the teacher's pictures, of sharp crops and of restored ones."""
    psnr = []
    for k in range(number_of(folder)):
        latent, picture = lesson(folder, k)
        psnr.append(-10 * ((decoder(latent).clamp(-1, 1) - picture) / 2).square().mean().log10().item())
    return float(np.mean(psnr[::2])), float(np.mean(psnr[1::2]))


def train(decoder: SubPixelDecoder, out: Path, *, steps: int, learning_rate: float, decay: float, every: int) -> None:
    """Adam on the L1 distance to the teacher's pictures, one whole picture a step; the moving average is what is kept."""
    average = copy.deepcopy(decoder)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=learning_rate, betas=(0.9, 0.99))
    state, first = out / "state.pt", 0
    if state.is_file():
        saved = torch.load(state, weights_only=True)
        decoder.load_state_dict(saved["decoder"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    losses: list[float] = []
    for step in range(first, steps + 1):
        if step % every == 0:
            sharp, restored = likeness(average, out / "dev")
            report(out / "curve.csv", step=step, l1=float(np.mean(losses or [0])), psnr_sharp=sharp, psnr_restored=restored)
            losses = []
            average.save_pretrained(out / "light_decoder")
            saved = {"decoder": decoder.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(saved, out / "state.part")
            (out / "state.part").replace(state)
        optimizer.param_groups[0]["lr"] = learning_rate * cosine_with_warmup(step, warmup_steps=10, max_steps=steps)
        latent, picture = lesson(out / "train", int(numpy_generator(0, "lesson", step).integers(number_of(out / "train"))))
        loss = (decoder(latent) - picture).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        with torch.no_grad():
            for own, live in zip(average.parameters(), decoder.parameters(), strict=True):
                own.lerp_(live, 1 - warmed_up_decay(decay, step))


def report(path: Path, **row: float) -> None:
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow({key: round(value, 4) for key, value in row.items()})
    print(row, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--checkpoint", default="embedded")
    parser.add_argument("--pictures", type=int, default=200, help="that the teacher makes to learn from")
    parser.add_argument("--blocks", type=int, default=2, help="of the teacher's own that the light decoder keeps, 1 to 4")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--learning-rate", type=float, default=3e-5)  # a fitted layer of 864 inputs a pixel bears no more
    parser.add_argument("--ema-decay", type=float, default=0.97)
    parser.add_argument("--validate-every", type=int, default=50)
    given = parser.parse_args()
    quiet_libraries()
    prepare_process(seed=0)
    restorer = Restorer.from_checkpoint(given.checkpoint, tiling=None)
    teach(given.out / "dev", given.photos / "dev", restorer, 8)
    teach(given.out / "train", given.photos / "train", restorer, given.pictures)
    vae = restorer.backbone.vae
    student = from_autoencoder(vae, teacher=fingerprint_of(vae.decoder), num_blocks=given.blocks)
    if not (given.out / "state.pt").is_file():
        fit_last_layer(student, given.out / "train")
    train(
        student, given.out, steps=given.steps, learning_rate=given.learning_rate, decay=given.ema_decay, every=given.validate_every
    )  # fmt: skip
