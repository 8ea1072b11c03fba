"""Blind face degradation: blur, reduce, noise, JPEG, resize back (GFPGAN, arXiv 2101.04061, equation 8; CodeFormer's figures)."""

from __future__ import annotations

import cv2
import numpy as np

from osediff_exp.degradations.base import Degradation, Image, LowQuality, check_image, check_scale, to_8_bit
from osediff_exp.degradations.checks import Range, checked_range
from osediff_exp.degradations.kernels import BlurKernels, blur
from osediff_exp.degradations.noise import gaussian_noise
from osediff_exp.degradations.resizing import resize


def _libjpeg(image: Image, quality: int) -> Image:
    # This recipe's reference codes with libjpeg, unlike Real-ESRGAN's.
    levels = np.rint(image[..., ::-1] * 255.0).astype(np.uint8)
    _, encoded = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), dtype=np.float32)
    return np.ascontiguousarray(decoded[..., ::-1]) / np.float32(255.0)


class FaceDegradation(Degradation):
    """A low-quality face at the size of the good one: ``scale`` is 1, and ``lr`` and ``lq`` are the same picture.

    ``downsample``: range of the reduction factor (>= 1); ``noise_sigma``: in 8-bit levels; ``jpeg_quality``: whole qualities.
    """

    def __init__(
        self,
        *,
        blur: BlurKernels,
        downsample: Range,
        noise_sigma: Range,
        jpeg_quality: Range,
        scale: int = 1,
    ) -> None:
        self.scale = check_scale(scale)
        self.blur = blur
        self.downsample = checked_range("downsample", downsample, low=1.0)
        self.noise_sigma = checked_range("noise_sigma", noise_sigma)
        self.jpeg_quality = checked_range("jpeg_quality", jpeg_quality, low=1.0, high=100.0)

    def __call__(self, hq: Image, rng: np.random.Generator) -> LowQuality:
        check_image(hq, self.scale)
        height, width = hq.shape[:2]
        image = blur(hq, self.blur.draw(rng))
        factor = rng.uniform(*self.downsample)
        image = resize(image, max(1, int(height / factor)), max(1, int(width / factor)), "bilinear")
        image = gaussian_noise(image, rng.uniform(*self.noise_sigma), gray=False, rng=rng)
        image = _libjpeg(image, int(rng.uniform(*self.jpeg_quality)))
        lq = to_8_bit(resize(image, height, width, "bilinear"))
        return LowQuality(lr=lq, lq=lq)
