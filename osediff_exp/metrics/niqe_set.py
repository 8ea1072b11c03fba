"""Set-level NIQE: how far the statistics of all restored pictures together lie from those of natural pictures.

NIQE (metrics/niqe.py) fits one Gaussian to the blocks of one picture: 4 of them at 256 px, far too few for a 36 x 36 covariance, which
is noise in its mean over pictures. Here one Gaussian is fitted to the blocks of all pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from osediff_exp.metrics.base import check_size
from osediff_exp.metrics.color import luma_full_range
from osediff_exp.metrics.moments import Moments
from osediff_exp.metrics.niqe import BLOCK, image_features, pristine_model
from osediff_exp.metrics.set_metric import SetMetric, SetScore, jackknife

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def distance_to_pristine(mean: Tensor, covariance: Tensor) -> Tensor:
    """Return sqrt(d^T ((C + C_0) / 2)^+ d) with d = m - m_0 (NIQE paper, eq. 10), (...), of Gaussians (..., 36), (..., 36, 36)."""
    pristine_mean, pristine_covariance = (torch.from_numpy(array) for array in pristine_model())
    d = mean - pristine_mean
    inverse = torch.linalg.pinv((covariance + pristine_covariance) / 2, hermitian=True)
    return torch.einsum("...i,...ij,...j->...", d, inverse, d).sqrt()


_NOT_FINITE = torch.full((1, 36), float("nan"), dtype=torch.float64)


def _features(luma: Tensor) -> Tensor:
    features = torch.from_numpy(image_features(luma.numpy()))
    return features[features.isfinite().all(dim=1)]


class NIQESet(SetMetric):
    """NIQE of one Gaussian fitted to the blocks of all restored pictures, jackknifed over pictures; ``target`` is ignored; lower is better.

    NaN where there are fewer than two blocks that are not flat.
    """

    higher_is_better = False

    def describe(self, pred: Tensor, target: Tensor) -> list[Tensor]:
        """Return the features (P, 36) of each restored picture's whole 96 px blocks, flat ones left out. UserError under 96 px.

        A picture that is not finite has one block of NaN: it must not pass for a flat one.
        """
        check_size(pred, BLOCK, "niqe_set")
        pred = pred.detach().cpu()
        finite = pred.isfinite().flatten(1).all(dim=1).tolist()
        return [_features(luma) if whole else _NOT_FINITE for luma, whole in zip(luma_full_range(pred), finite, strict=True)]

    def score(self, pictures: Sequence[Tensor]) -> SetScore:
        """Return the distance of all blocks' Gaussian to the model of natural pictures."""
        moments = Moments.of_each(pictures)
        if moments.total().count - moments.count.max() < 2:  # without one of the pictures there would be no covariance
            whole = moments.total().count >= 2
            return SetScore(distance_to_pristine(*moments.total().gaussian()) if whole else torch.tensor(float("nan")))
        whole = distance_to_pristine(*moments.total().gaussian())
        return jackknife(whole, distance_to_pristine(*moments.without_each().gaussian()))
