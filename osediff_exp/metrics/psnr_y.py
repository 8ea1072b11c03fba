"""PSNR on luma, the protocol of the OSEDiff paper's tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from osediff_exp.metrics.base import ImageMetric, check_pair
from osediff_exp.metrics.color import luma_video_range

if TYPE_CHECKING:
    from torch import Tensor

_EPSILON = 1e-8  # added to the mean squared error by the toolbox behind the published scores (pyiqa)


def psnr_y(pred: Tensor, target: Tensor) -> Tensor:
    """Return 10 log10(1 / (mse + 1e-8)) in dB for each image; (B, 3, H, W) RGB in [0, 1] -> (B,) float64.

    The mse is that of unrounded BT.601 luma (16..235) / 255, so the data range is 1. The epsilon bounds the score of identical pictures at
    80 dB, and lowers a score of 25 dB by 1e-5 dB.
    """
    check_pair(pred, target)
    mse = (luma_video_range(pred) - luma_video_range(target)).square().mean(dim=(1, 2, 3))
    return -10.0 * (mse + _EPSILON).log10()


class PSNRY(ImageMetric):
    """Mean :func:`psnr_y` in dB; higher is better."""

    higher_is_better = True

    def per_image(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the PSNR of each image in dB, (B,)."""
        return psnr_y(pred, target)
