"""DISTS: a distance that compares structure and tolerates another sample of the same texture.

K. Ding, K. Ma, S. Wang, E. P. Simoncelli, "Image Quality Assessment: Unifying Structure and Texture Similarity", IEEE TPAMI 44(5), 2022.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from osediff_exp.errors import UserError
from osediff_exp.metrics.base import ImageMetric, check_pair, check_size
from osediff_exp.metrics.external import weights_of

if TYPE_CHECKING:
    from torch import Tensor

_MINIMUM_SIZE = 32  # px: four reductions by two leave a feature map of 2 x 2


class DISTS(ImageMetric):
    """Mean DISTS of the restored images to the ground truth, in [0, 1]; lower is better.

    The network is torchmetrics' (the authors' weights of the distance ship with it), which computes what pyiqa's does. Its VGG16 trunk
    comes from torch hub's checkpoint folder or is downloaded into it; UserError where neither is possible.
    """

    higher_is_better = False

    def __init__(self) -> None:
        super().__init__()
        try:
            import torchvision  # noqa: F401 - torchmetrics' own message would not say how to get it
            from torchmetrics.functional.image.dists import DISTSNetwork
        except ImportError as error:
            raise UserError(f"dists needs torchvision and torchmetrics 1.7 ({error}): pip install torchvision torchmetrics") from error
        with weights_of("dists"):
            self.distance = DISTSNetwork().requires_grad_(False).eval()

    def per_image(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the distance of each image, (B,); both (B, 3, H, W) in [0, 1]. UserError under 32 px."""
        check_pair(pred, target)
        check_size(pred, _MINIMUM_SIZE, "dists")
        return self.distance(pred.float(), target.float()).detach().double().reshape(-1)
