"""The contract of a degradation and what every degradation shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from osediff_exp.errors import UserError

Image = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LowQuality:
    """A degraded picture, float32 RGB in [0, 1], both forms on the 8-bit grid.

    ``lr``: (H / scale, W / scale, 3), the low-resolution picture. ``lq``: (H, W, 3), resized up as the recipe says.
    """

    lr: Image
    lq: Image


class Degradation(ABC):
    """Makes low-quality pictures; stateless, so that a sample depends on its generator alone."""

    scale: int

    @abstractmethod
    def __call__(self, hq: Image, rng: np.random.Generator) -> LowQuality:
        """Degrade ``hq`` (H, W, 3), float32 in [0, 1], H and W multiples of ``scale``; all randomness comes from ``rng``."""


def to_8_bit(image: Image) -> Image:
    """Clamp to [0, 1] and round to the 8-bit grid k / 255 (halves to even, like torch)."""
    scaled = np.clip(image, 0.0, 1.0) * np.float32(255.0)
    return np.rint(scaled, out=scaled) / np.float32(255.0)


def check_image(hq: Image, scale: int) -> None:
    """Refuse sizes that are no multiple of the scale; anything but (H, W, 3) float32 is a bug of the caller."""
    is_rgb = hq.ndim == 3 and hq.shape[2] == 3 and hq.dtype == np.float32
    assert is_rgb, f"want (H, W, 3) float32, got {hq.shape} {hq.dtype}"
    height, width = hq.shape[:2]
    if height % scale or width % scale or not height * width:
        raise UserError(f"degradation: a picture of {width}x{height} px does not divide by the scale {scale}; use a crop that does")


def check_scale(scale: int) -> int:
    """Return the scale if it is a positive whole number."""
    if scale != int(scale) or scale < 1:
        raise UserError(f"degradation: scale={scale} is not a positive whole number; write 4, or 1 for faces")
    return int(scale)
