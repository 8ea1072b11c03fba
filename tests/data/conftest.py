"""Photos and a degradation small enough to compute by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from osediff_exp.degradations.base import Degradation, LowQuality, to_8_bit

if TYPE_CHECKING:
    from pathlib import Path


class NoisyBox(Degradation):
    """4x box reduction plus uniform noise of the generator; resized up by repetition."""

    scale = 4

    def __call__(self, hq: np.ndarray, rng: np.random.Generator) -> LowQuality:
        height, width = hq.shape[:2]
        lr = hq.reshape(height // 4, 4, width // 4, 4, 3).mean((1, 3))
        lr = to_8_bit((lr + rng.uniform(-0.1, 0.1, lr.shape)).astype(np.float32))
        return LowQuality(lr=lr, lq=lr.repeat(4, 0).repeat(4, 1))


@pytest.fixture
def degradation() -> Degradation:
    return NoisyBox()


def write_photo(path: Path, *, height: int = 40, width: int = 48, seed: int = 0) -> np.ndarray:
    """Write a picture of random pixels and return it, (H, W, 3) uint8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder ``photos`` of six pictures 48 x 40, one of them in a subfolder."""
    root = tmp_path / "photos"
    for number in range(5):
        write_photo(root / f"{number}.png", seed=number)
    write_photo(root / "more" / "5.png", seed=5)
    return root
