"""How sharp a restored image is, measured against its ground truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from osediff_exp.metrics.base import ImageMetric, check_pair
from osediff_exp.metrics.color import luma_video_range

if TYPE_CHECKING:
    from torch import Tensor

_LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))
_EPSILON = 1e-6  # a ground truth without any detail at all gives a large, finite ratio


def laplacian_deviation(images: Tensor) -> Tensor:
    """Return the standard deviation of the 4-neighbour Laplacian of BT.601 luma (data range 1); (B, 3, H, W) in [0, 1] -> (B,) float64."""
    kernel = torch.tensor(_LAPLACIAN, dtype=torch.float64, device=images.device)[None, None]
    return F.conv2d(luma_video_range(images), kernel).flatten(1).std(dim=1, correction=0)


class Sharpness(ImageMetric):
    """Mean ratio of the output's Laplacian deviation to the ground truth's: 1 is as sharp as the original, below is softer.

    It cannot tell detail from noise or ringing: read it beside a distance to the original. Neither direction is better by itself.
    """

    def per_image(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the ratio of each image, (B,)."""
        check_pair(pred, target)
        return laplacian_deviation(pred) / laplacian_deviation(target).clamp_min(_EPSILON)
