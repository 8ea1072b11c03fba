"""ST-LPIPS as a metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from osediff_exp.metrics.base import ImageMetric, check_pair
from osediff_exp.models.perceptual import st_lpips_distance

if TYPE_CHECKING:
    from torch import Tensor


class STLPIPS(ImageMetric):
    """Mean ST-LPIPS distance (Ghildyal and Liu, ECCV 2022) of restored images to the ground truth; lower is better. Never call it LPIPS."""

    higher_is_better = False

    def __init__(self, *, net: str = "alex") -> None:
        super().__init__()
        self.distance = st_lpips_distance(net)

    def per_image(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the distance of each image, (B,); both (B, 3, H, W) in [0, 1]."""
        check_pair(pred, target)
        return self.distance(self._input(pred), self._input(target))

    @staticmethod
    def _input(image: Tensor) -> Tensor:
        image = image.float() * 2.0 - 1.0
        # A CPU's float32 kernels, max pooling's above all, take two thirds of the time where channels come last. The values are the same.
        return image.contiguous(memory_format=torch.channels_last) if image.device.type == "cpu" else image
