"""Photos of hundreds of megapixels: memory grows with the output by its few copies, and by one photo, however many there are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from restoration_parts import save_checkpoint
from tiny_parts import SCHEDULER, TEXT_ENCODER

from osediff_exp.models.backbone import Backbone, load_backbone, save_backbone
from osediff_exp.pretraining.initial import initial_backbone

ROOT = Path(__file__).parents[1]
BYTES = 24  # most of memory per pixel of the output: 12 of the sum of the tiles, 3 each of photo, enlargement and result, and latents


def thin_backbone(folder: Path) -> Backbone:
    """Return a random backbone of Stable Diffusion's shape with two channels, which restores a megapixel in a second or two."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(2,) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=64,
        mid_block_add_attention=False,
    )
    return initial_backbone(
        vae=vae,
        unet={
            "sample_size": 16,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "block_out_channels": (4, 4),
            "layers_per_block": 1,
            "cross_attention_dim": 16,
            "attention_head_dim": 2,
            "norm_num_groups": 2,
            "use_linear_projection": True,
        },
        text_encoder=TEXT_ENCODER,
        scheduler=SCHEDULER | {"prediction_type": "epsilon"},
        tokenizer_folder=folder,
        prompts=["sharp photo", "blurry drawing"],
        content_words=["tree"],
        vocab_size=600,
    )


def write_photo(path: Path, width: int, height: int) -> None:
    """Write a smooth JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[: height // 8, : width // 8].astype(np.float32)
    waves = [np.sin(x / 37 + y / 51), np.cos(x / 23), np.sin(y / 29)]
    coarse = np.stack([127 + 100 * wave for wave in waves], axis=-1).astype(np.uint8)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path, quality=95)


def peak_bytes(checkpoint: Path, photos: Path, scale: int) -> int:
    """Restore ``photos`` in a process of its own; return its largest resident memory."""
    words = ["task=restore", f"checkpoint={checkpoint}", f"input={photos}", f"upscale={scale}", "restorer.device=cpu"]
    command = [sys.executable, "-m", "osediff_exp", *words, f"hydra.run.dir={photos}_x{scale}"]
    running = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    assert running.returncode == 0
    for photo in photos.iterdir():
        with Image.open(photo) as before, Image.open(f"{photos}_x{scale}/restored/{photo.stem}.png") as after:
            assert after.size == (scale * before.width, scale * before.height)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "wait4"), reason="asks the system for a process's largest memory")
@pytest.mark.parametrize("scale", [1, 4])
def test_memory_grows_by_a_few_copies_of_one_photo(scale: int, tmp_path: Path) -> None:
    save_backbone(thin_backbone(tmp_path / "tokenizer"), tmp_path / "thin")
    checkpoint = save_checkpoint(load_backbone(sources=[str(tmp_path / "thin")]), tmp_path / "thin", tmp_path / "run")
    write_photo(tmp_path / "small" / "a.jpg", 4096 // scale, 2048 // scale)
    for name in ("a.jpg", "b.jpg"):
        write_photo(tmp_path / "large" / name, 8192 // scale, 5120 // scale)
    small, large = (peak_bytes(checkpoint, tmp_path / name, scale) for name in ("small", "large"))
    growth = (large - small) / (8192 * 5120 - 4096 * 2048)
    print(f"upscale={scale}: {small / 2**20:.0f} MiB for 8 megapixels, {large / 2**20:.0f} for two of 42: {growth:.1f} bytes a pixel")
    assert growth < BYTES
