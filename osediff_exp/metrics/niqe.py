"""NIQE: how far an image's statistics lie from those of natural pictures, without a reference.

A. Mittal, R. Soundararajan, A. C. Bovik, "Making a 'Completely Blind' Image Quality Analyzer", IEEE Signal Processing Letters 20(3),
2013, with the authors' own model (data/SOURCE.md) and their choices: 96 px blocks, two scales, MATLAB's antialiased bicubic reduction
between them.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from torch import Tensor

from osediff_exp.metrics.aggd import fit_aggd, mean_of_aggd
from osediff_exp.metrics.base import ImageMetric, check_size
from osediff_exp.metrics.color import luma_full_range

Array = NDArray[np.float64]

BLOCK = 96
_WINDOW_RADIUS, _WINDOW_SIGMA = 3, 7 / 6
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))  # horizontal, vertical, main and secondary diagonal


@cache
def pristine_model() -> tuple[Array, Array]:
    """Return the mean (36,) and covariance (36, 36) of the features of natural pictures."""
    with (files("osediff_exp.metrics") / "data" / "niqe_parameters.npz").open("rb") as file, np.load(file) as stored:
        return stored["mean"], stored["covariance"]


def normalize_locally(image: Array) -> Array:
    """Return the mean-subtracted contrast-normalised coefficients (I - mu) / (sigma + 1) of ``image`` (H, W) in 0..255 (eq. 1).

    mu and sigma are Gaussian-weighted over 7 x 7 px (sigma 7/6); the border is repeated outwards.
    """
    mu = _smooth(image)
    sigma = np.sqrt(np.abs(_smooth(image * image) - mu * mu))
    return (image - mu) / (sigma + 1.0)


def _smooth(image: Array) -> Array:
    offsets = np.arange(-_WINDOW_RADIUS, _WINDOW_RADIUS + 1)
    window = np.exp(-(offsets**2) / (2 * _WINDOW_SIGMA**2))
    window /= window.sum()
    return correlate1d(correlate1d(image, window, axis=0, mode="nearest"), window, axis=1, mode="nearest")


def halve(image: Array) -> Array:
    """Return ``image`` (H, W), both even, reduced to (H/2, W/2) as MATLAB's imresize(image, 0.5) does: antialiased bicubic.

    At one half each output pixel sees the same 8 taps: Keys' cubic (a = -1/2) stretched twofold; the border is mirrored.
    """
    distance = np.abs(np.arange(-3.5, 4.0)) / 2.0
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1.0
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4.0 * distance + 2.0
    taps = np.where(distance <= 1.0, near, far)
    taps /= taps.sum()
    return _halve_rows(_halve_rows(image, taps).T, taps).T


def _halve_rows(image: Array, taps: Array) -> Array:
    padded = np.pad(image, ((3, 3), (0, 0)), mode="symmetric")
    out = np.zeros((image.shape[0] // 2, image.shape[1]))
    for k, tap in enumerate(taps):
        out += tap * padded[k : k + image.shape[0] : 2]
    return out


def block_features(image: Array, block: int) -> Array:
    """Return the 18 features of each block (N, 18) of ``image`` (H, W) in 0..255, H and W multiples of ``block`` (table I of the paper).

    Two from the coefficients themselves (shape and mean scale), then shape, mean, left and right scale of their products with each of four
    neighbours. A block's neighbour beyond its edge is the pixel at the opposite edge, as in the authors' code.
    """
    blocks = _split(normalize_locally(image), block)
    shape, left, right = fit_aggd(blocks)
    columns = [shape, (left + right) / 2.0]
    for shift in _NEIGHBOURS:
        shape, left, right = fit_aggd(blocks * np.roll(blocks, shift, axis=(1, 2)))
        columns += [shape, mean_of_aggd(shape, left, right), left, right]
    return np.stack(columns, axis=1)


def _split(image: Array, block: int) -> Array:
    """Cut (H, W) into (N, block, block)."""
    rows, columns = image.shape[0] // block, image.shape[1] // block
    return np.ascontiguousarray(image.reshape(rows, block, columns, block).swapaxes(1, 2)).reshape(-1, block, block)


def image_features(luma: Array) -> Array:
    """Return the 36 features of every whole 96 px block of ``luma`` (H, W) in 0..255: 18 at full and 18 at half size, (N, 36)."""
    height, width = (side // BLOCK * BLOCK for side in luma.shape)
    luma = luma[:height, :width]
    return np.concatenate([block_features(luma, BLOCK), block_features(halve(luma), BLOCK // 2)], axis=1)


def niqe_of_luma(luma: Array) -> float:
    """Return NIQE of ``luma`` (H, W), whole numbers 0..255, both sides at least 96 px (eq. 10 of the paper); lower is better.

    Flat blocks have undefined features: they are left out as in the authors' code, and a picture of flat blocks only scores NaN. The
    inverse is a pseudo-inverse, as there. One block alone has no covariance; it is then taken as zero, which keeps the score defined for
    pictures under 192 px (the authors' code is not made for them), but such scores compare only among themselves.
    """
    features = image_features(luma)
    whole = features[~np.isnan(features).any(axis=1)]
    if len(whole) == 0:
        return float("nan")
    mean, covariance = pristine_model()
    own = np.cov(whole, rowvar=False) if len(whole) > 1 else np.zeros_like(covariance)
    difference = mean - np.nanmean(features, axis=0)
    return float(np.sqrt(difference @ np.linalg.pinv((covariance + own) / 2.0) @ difference))


def niqe(images: Tensor) -> Tensor:
    """Return NIQE of each image: (B, 3, H, W) RGB in [0, 1] -> (B,) float64 on the images' device, computed on the CPU.

    Raises UserError where a side is shorter than one block (96 px).
    """
    check_size(images, BLOCK, "NIQE")
    scores = [niqe_of_luma(luma.numpy()) for luma in luma_full_range(images.detach().cpu())]
    return torch.tensor(scores, dtype=torch.float64, device=images.device)


class NIQE(ImageMetric):
    """Mean :func:`niqe` of the restored images; ``target`` is ignored; lower is better."""

    higher_is_better = False

    def per_image(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return NIQE of each restored image, (B,)."""
        return niqe(pred)
