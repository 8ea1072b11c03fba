"""FID: how far the set of restored pictures lies from the set of originals in the feature space of an Inception network.

M. Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017, with the antialiased
resizing of G. Parmar, R. Zhang, J.-Y. Zhu, "On Aliased Resizing and Surprising Subtleties in GAN Evaluation", CVPR 2022 ("clean" mode),
which is what pyiqa does and the field's tables show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from osediff_exp.metrics.base import check_pair
from osediff_exp.metrics.external import pyiqa_network
from osediff_exp.metrics.set_metric import SetMetric

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 299  # px: the side of the Inception network's input


def frechet_distance(x: Tensor, y: Tensor) -> Tensor:
    """Return |m_x - m_y|^2 + Tr(C_x + C_y - 2 (C_x C_y)^(1/2)) of two sets of features (N, D) and (M, D); NaN under two rows.

    With centred rows A, B scaled so that C_x = A^T A and C_y = B^T B, the trace of the root is the sum of the singular values of A B^T:
    exact for fewer rows than features, where a matrix root of the singular product is not, and much faster.
    """
    if min(len(x), len(y)) < 2:
        return torch.tensor(float("nan"), dtype=torch.float64)
    x, y = x.double(), y.double()
    a, b = ((rows - rows.mean(dim=0)) / (len(rows) - 1) ** 0.5 for rows in (x, y))
    root = torch.linalg.svdvals(_at_most_square(a) @ _at_most_square(b).T).sum()
    return (x.mean(dim=0) - y.mean(dim=0)).square().sum() + a.square().sum() + b.square().sum() - 2.0 * root


def _at_most_square(a: Tensor) -> Tensor:
    """Return R with R^T R = A^T A and no more rows than columns."""
    return a if a.shape[0] <= a.shape[1] else torch.linalg.qr(a, mode="r").R


def inception_input(images: Tensor) -> Tensor:
    """Return (B, 3, 299, 299) in [-1, 1) of images (B, 3, H, W) in [0, 1], rounded to 8 bit as the saved pictures are.

    Each channel is resized in floating point with Pillow's antialiased bicubic and clipped to 0..255.
    """
    pixels = (images.detach().float().clamp(0.0, 1.0) * 255.0).round().cpu().numpy()
    resized = np.stack([[_resize(channel) for channel in image] for image in pixels])
    return (torch.from_numpy(resized) - 128.0) / 128.0


def _resize(channel: Any) -> Any:
    return np.asarray(Image.fromarray(channel).resize((SIZE, SIZE), Image.Resampling.BICUBIC)).clip(0.0, 255.0)


class FID(SetMetric):
    """Frechet distance between the features of restored pictures and originals; lower is better.

    Few pictures bias it upwards: scores compare only between sets of one size (the tables' RealSR has 100).

    Args:
        features: maps (B, 3, 299, 299) in [-1, 1) to (B, D); None: pyiqa's Inception network, D = 2048.

    Raises:
        UserError: pyiqa is not installed, or its weights cannot be had.
    """

    higher_is_better = False
    pred_features: list[Tensor]
    target_features: list[Tensor]

    def __init__(self, *, features: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.features: Any = features or _Inception()
        self.add_state("pred_features", default=[], dist_reduce_fx="cat")
        self.add_state("target_features", default=[], dist_reduce_fx="cat")

    def update(self, pred: Tensor, target: Tensor) -> None:
        """Add a batch to both sets; both (B, 3, H, W) RGB in [0, 1]."""
        check_pair(pred, target)
        with torch.inference_mode():
            self.pred_features.append(self._features(pred))
            self.target_features.append(self._features(target))

    def _features(self, images: Tensor) -> Tensor:
        return self.features(inception_input(images).to(self.device)).float()

    def compute(self) -> Tensor:
        """Return the distance, a scalar; NaN under two pictures."""
        return frechet_distance(dim_zero_cat(self.pred_features), dim_zero_cat(self.target_features))


class _Inception(torch.nn.Module):
    """The 2048 pooled features of pyiqa's Inception network."""

    def __init__(self) -> None:
        super().__init__()
        self.network: Any = pyiqa_network("fid").net.model  # type: ignore[union-attr]

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images, False, False)[0].flatten(1)
