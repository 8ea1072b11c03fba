"""Gaussian and Poisson noise of Real-ESRGAN, in colour or gray, on RGB float32 pictures; sigma is in 8-bit levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from osediff_exp.degradations.checks import Range, checked_probability, checked_range
from osediff_exp.degradations.poisson import poisson_table

if TYPE_CHECKING:
    from osediff_exp.degradations.base import Image

LUMA = np.array([[0.2989, 0.587, 0.114]], dtype=np.float32)  # torchvision's rgb_to_grayscale, as in the reference


def gaussian_noise(image: Image, sigma: float, gray: bool, rng: np.random.Generator) -> Image:
    """Add N(0, (sigma / 255)^2) to each value, or one field to all three channels, and clamp to [0, 1] without rounding."""
    field = rng.standard_normal((*image.shape[:2], 1 if gray else 3), dtype=np.float32)
    field *= np.float32(sigma / 255.0)
    noisy = field + image
    return np.clip(noisy, 0.0, 1.0, out=noisy)


def poisson_noise(image: Image, scale: float, gray: bool, rng: np.random.Generator) -> Image:
    """Add scale * (Poisson(v x) / v - x), clamped to [0, 1]; x is the picture (gray: its luma) rounded to 8 bits.

    v = 2^ceil(log2 n) for the n distinct values of x in the whole picture: few levels mean strong noise.
    """
    source = cv2.transform(image, LUMA)[..., None] if gray else image
    levels = np.rint(np.clip(source, 0.0, 1.0) * np.float32(255.0)).astype(np.uint8)
    num_distinct = np.count_nonzero(cv2.calcHist([levels.reshape(-1, 1)], [0], None, [256], [0, 256]))
    peak = 1 << int(num_distinct - 1).bit_length()
    noise = poisson_table(peak).sample(levels, rng) * np.float32(scale / peak)
    noise -= levels * np.float32(scale / 255.0)
    noisy = noise + image
    return np.clip(noisy, 0.0, 1.0, out=noisy)


@dataclass(frozen=True, kw_only=True)
class RandomNoise:
    """Gaussian noise with ``gaussian_probability``, else Poisson noise.

    ``gaussian_sigma``: range in 8-bit levels. ``poisson_scale``: range of the factor on the noise. ``gray_probability``: how often
    the three channels share the noise.
    """

    gaussian_probability: float
    gaussian_sigma: Range
    poisson_scale: Range
    gray_probability: float

    def __post_init__(self) -> None:
        checked_probability("noise.gaussian_probability", self.gaussian_probability)
        checked_probability("noise.gray_probability", self.gray_probability)
        object.__setattr__(self, "gaussian_sigma", checked_range("noise.gaussian_sigma", self.gaussian_sigma))
        object.__setattr__(self, "poisson_scale", checked_range("noise.poisson_scale", self.poisson_scale))

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Draw kind, strength and gray or colour, then the noise; returns values in [0, 1]."""
        gaussian = rng.random() < self.gaussian_probability
        strength = rng.uniform(*(self.gaussian_sigma if gaussian else self.poisson_scale))
        gray = bool(rng.random() < self.gray_probability)
        return gaussian_noise(image, strength, gray, rng) if gaussian else poisson_noise(image, strength, gray, rng)
