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

from osediff_exp.metrics.base import check_pair
from osediff_exp.metrics.external import pyiqa_network
from osediff_exp.metrics.set_metric import SetMetric, SetScore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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

    def __init__(self, *, features: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.features: Any = features or _Inception()

    def describe(self, pred: Tensor, target: Tensor) -> list[Tensor]:
        """Return per picture (1, 2 D): the features of the restored picture beside those of the original."""
        check_pair(pred, target)
        with torch.inference_mode():
            return list(torch.cat([self._features(pred), self._features(target)], dim=1)[:, None])

    def _features(self, images: Tensor) -> Tensor:
        return self.features(inception_input(images).to(self.device)).float()

    def score(self, pictures: Sequence[Tensor]) -> SetScore:
        """Return the distance; NaN under two pictures.

        No contributions: the tables print the plain, biased distance, and with 2048 features and 100 pictures its bias is most of it.
        """
        return SetScore(frechet_distance(*torch.cat(list(pictures)).chunk(2, dim=1)))


class _Inception(torch.nn.Module):
    """The 2048 pooled features of pyiqa's Inception network."""

    def __init__(self) -> None:
        super().__init__()
        self.network: Any = pyiqa_network("fid").net.model  # type: ignore[union-attr]

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images, False, False)[0].flatten(1)
