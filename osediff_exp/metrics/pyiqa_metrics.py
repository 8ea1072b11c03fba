"""The learned metrics of the field's tables, by the toolbox that computed the published figures: pyiqa."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from osediff_exp.metrics.base import ImageMetric, check_pair, check_size
from osediff_exp.metrics.external import pyiqa_network

if TYPE_CHECKING:
    from torch import Tensor

_MINIMUM_SIZE = 32  # px: below this the strided networks have no feature map left


class PyiqaMetric(ImageMetric):
    """Mean of one of pyiqa's metrics over the restored images; metrics without a reference ignore ``target``.

    Args:
        name: pyiqa's name. The paper's tables use ``musiq`` (trained on KonIQ, 0..100), ``maniqa-pipal`` (0..1) and ``clipiqa`` (0..1);
            for all three higher is better.

    Raises:
        UserError: pyiqa is not installed, has no such metric, or its weights cannot be had.
    """

    def __init__(self, *, name: str) -> None:
        super().__init__()
        self.name = name
        self.network: Any = pyiqa_network(name)
        self.needs_reference = self.network.metric_mode == "FR"

    def per_image(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the score of each image, (B,) float64; both (B, 3, H, W) in [0, 1]. UserError under 32 px."""
        check_pair(pred, target)
        check_size(pred, _MINIMUM_SIZE, self.name)
        images = pred.float().clamp(0.0, 1.0)
        scores = self.network(images, target.float().clamp(0.0, 1.0)) if self.needs_reference else self.network(images)
        return scores.detach().double().reshape(-1)
