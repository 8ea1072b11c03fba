"""The two-stage degradation of Real-ESRGAN (arXiv 2107.10833, figure 2 and section 3) as OSEDiff runs it: no unsharp mask, no pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from osediff_exp.degradations.base import Degradation, Image, LowQuality, check_image, check_scale, to_8_bit
from osediff_exp.degradations.checks import Range, checked_probability, checked_range
from osediff_exp.degradations.jpeg import jpeg
from osediff_exp.degradations.kernels import BlurKernels, SincKernels, blur
from osediff_exp.degradations.resizing import RandomScale, draw_mode, rescale, resize

if TYPE_CHECKING:
    from osediff_exp.degradations.noise import RandomNoise


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The figures of one stage: blur (with ``blur_probability``), resize, noise, JPEG (``jpeg_quality``: range, 100 is best)."""

    blur_probability: float
    blur: BlurKernels
    resize: RandomScale
    noise: RandomNoise
    jpeg_quality: Range

    def __post_init__(self) -> None:
        checked_probability("blur_probability", self.blur_probability)
        object.__setattr__(self, "jpeg_quality", checked_range("jpeg_quality", self.jpeg_quality, low=1.0, high=100.0))

    def random_blur(self, image: Image, rng: np.random.Generator) -> Image:
        """Blur with a random kernel, or not at all."""
        return blur(image, self.blur.draw(rng)) if rng.random() < self.blur_probability else image

    def random_jpeg(self, image: Image, rng: np.random.Generator) -> Image:
        """Clamp to [0, 1] and code at a random quality."""
        return jpeg(np.clip(image, 0.0, 1.0), rng.uniform(*self.jpeg_quality))


class RealESRGANDegradation(Degradation):
    """Blur, resize, noise, JPEG; the same again; resized to the low resolution with a sinc filter, before or after the last JPEG.

    ``first``, ``second``: the stages; the second's resize factor is relative to the low resolution. ``final_sinc`` acts with
    ``final_sinc_probability``; ``jpeg_last_probability`` is how often the last JPEG comes after it.
    """

    def __init__(
        self,
        *,
        scale: int,
        first: Stage,
        second: Stage,
        final_sinc: SincKernels,
        final_sinc_probability: float,
        jpeg_last_probability: float = 0.5,
    ) -> None:
        self.scale = check_scale(scale)
        self.first, self.second, self.final_sinc = first, second, final_sinc
        self.final_sinc_probability = checked_probability("final_sinc_probability", final_sinc_probability)
        self.jpeg_last_probability = checked_probability("jpeg_last_probability", jpeg_last_probability)

    def __call__(self, hq: Image, rng: np.random.Generator) -> LowQuality:
        """Degrade as the contract says; ``lq`` enlarges the unrounded picture by a random mode, as in OSEDiff's code."""
        check_image(hq, self.scale)
        size = hq.shape[0] // self.scale, hq.shape[1] // self.scale
        image = self._second_stage(self._first_stage(hq, rng), size, rng)
        if rng.random() < self.jpeg_last_probability:
            image = self.second.random_jpeg(self._to_low_resolution(image, size, rng), rng)
        else:
            image = self._to_low_resolution(self.second.random_jpeg(image, rng), size, rng)
        enlarged = resize(image, hq.shape[0], hq.shape[1], draw_mode(rng))
        return LowQuality(lr=to_8_bit(image), lq=to_8_bit(enlarged))

    def _first_stage(self, image: Image, rng: np.random.Generator) -> Image:
        image = self.first.random_blur(image, rng)
        image = rescale(image, self.first.resize.draw(rng), draw_mode(rng))
        return self.first.random_jpeg(self.first.noise(image, rng), rng)

    def _second_stage(self, image: Image, size: tuple[int, int], rng: np.random.Generator) -> Image:
        image = self.second.random_blur(image, rng)
        factor = self.second.resize.draw(rng)
        height, width = (max(1, int(side * factor)) for side in size)
        return self.second.noise(resize(image, height, width, draw_mode(rng)), rng)

    def _to_low_resolution(self, image: Image, size: tuple[int, int], rng: np.random.Generator) -> Image:
        image = resize(image, *size, draw_mode(rng))
        return blur(image, self.final_sinc.draw(rng)) if rng.random() < self.final_sinc_probability else image
