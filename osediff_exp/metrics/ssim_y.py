"""SSIM on luma, the protocol of the OSEDiff paper's tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from osediff_exp.metrics.base import ImageMetric, check_pair, check_size
from osediff_exp.metrics.color import luma_video_range

if TYPE_CHECKING:
    from torch import Tensor

_RADIUS, _SIGMA = 5, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def ssim_y(pred: Tensor, target: Tensor) -> Tensor:
    """Return the structural similarity of each image, in [0, 1]; (B, 3, H, W) RGB in [0, 1] -> (B,) float64.

    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 13(4), 2004, eq. 13, with its
    K1 = 0.01 and K2 = 0.03, data range 1, Gaussian window 11 x 11, sigma 1.5, only where the window lies inside the picture, no
    downsampling. Two choices are those of the toolbox behind the published scores (pyiqa): BT.601 luma (16..235) rounded to 8 bit (unlike
    its PSNR), and negative structure terms count as zero (the paper keeps them). Raises UserError where a side is shorter than 11 px.
    """
    check_pair(pred, target)
    check_size(pred, 2 * _RADIUS + 1, "SSIM")
    x, y = _rounded_luma(pred), _rounded_luma(target)
    mu_x, mu_y = _window_mean(x), _window_mean(y)
    sigma_xx = _window_mean(x * x) - mu_x * mu_x
    sigma_yy = _window_mean(y * y) - mu_y * mu_y
    sigma_xy = _window_mean(x * y) - mu_x * mu_y
    luminance = (2 * mu_x * mu_y + _C1) / (mu_x * mu_x + mu_y * mu_y + _C1)
    structure = (2 * sigma_xy + _C2) / (sigma_xx + sigma_yy + _C2)
    return (luminance * structure.clamp(min=0)).mean(dim=(1, 2, 3))


def _rounded_luma(images: Tensor) -> Tensor:
    return (luma_video_range(images) * 255.0).round() / 255.0


def _window_mean(image: Tensor) -> Tensor:
    """Return the Gaussian-weighted local means (B, 1, H - 10, W - 10) of ``image`` (B, 1, H, W); the window is separable."""
    weights = [math.exp(-(offset**2) / (2 * _SIGMA**2)) for offset in range(_RADIUS + 1)]
    total = weights[0] + 2 * sum(weights[1:])
    weights = [weight / total for weight in weights]
    return _weighted_shifts(_weighted_shifts(image, weights, dim=2), weights, dim=3)


def _weighted_shifts(image: Tensor, weights: list[float], dim: int) -> Tensor:
    # Sums of shifted views: in float64 twenty times faster on a CPU than a convolution, and never in TF32 on a GPU.
    size = image.shape[dim] - 2 * _RADIUS
    out = image.narrow(dim, _RADIUS, size) * weights[0]
    for offset, weight in enumerate(weights[1:], start=1):
        out.add_(image.narrow(dim, _RADIUS - offset, size), alpha=weight)
        out.add_(image.narrow(dim, _RADIUS + offset, size), alpha=weight)
    return out


class SSIMY(ImageMetric):
    """Mean :func:`ssim_y`; higher is better."""

    higher_is_better = True

    def per_image(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the SSIM of each image, (B,)."""
        return ssim_y(pred, target)
