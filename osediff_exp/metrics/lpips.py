"""LPIPS as a metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

from osediff_exp.metrics.base import ImageMetric, check_pair
from osediff_exp.models.perceptual import lpips_distance

if TYPE_CHECKING:
    from torch import Tensor


class LPIPS(ImageMetric):
    """Mean LPIPS distance (version 0.1; the field's tables use ``alex``) of restored images to the ground truth; lower is better."""

    higher_is_better = False

    def __init__(self, *, net: str = "alex") -> None:
        super().__init__()
        self.distance = lpips_distance(net)

    def per_image(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the distance of each image, (B,); both (B, 3, H, W) in [0, 1]."""
        check_pair(pred, target)
        return self.distance(pred.float() * 2.0 - 1.0, target.float() * 2.0 - 1.0)
