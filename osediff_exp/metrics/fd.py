"""FD: the Frechet distance between restored and true patches, corrected for the size of the set.

M. Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017, with features of
patches (models/patch_features.py): no FID, and its figures compare among themselves only. A Frechet distance of few samples is too
large (M. J. Chong, D. Forsyth, "Effectively Unbiased FID and Inception Score", CVPR 2020); the jackknife over pictures takes the leading
part of that bias away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from osediff_exp.metrics.moments import Moments
from osediff_exp.metrics.patch_metric import PatchMetric
from osediff_exp.metrics.set_metric import SetScore, jackknife

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def frechet_of_gaussians(mean_x: Tensor, c_x: Tensor, mean_y: Tensor, c_y: Tensor) -> Tensor:
    """Return |m_x - m_y|^2 + Tr(C_x + C_y - 2 (C_x^(1/2) C_y C_x^(1/2))^(1/2)), (...), of Gaussians (..., D), (..., D, D)."""
    values, vectors = torch.linalg.eigh(c_x)
    root = vectors * values.clamp_min(0).sqrt()[..., None, :] @ vectors.mT
    roots = torch.linalg.eigvalsh(root @ c_y @ root).clamp_min(0).sqrt().sum(dim=-1)
    return (mean_x - mean_y).square().sum(dim=-1) + _trace(c_x) + _trace(c_y) - 2 * roots


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=-2, dim2=-1).sum(dim=-1)


def frechet_of_pictures(x: Sequence[Tensor], y: Sequence[Tensor]) -> SetScore:
    """Return the distance between the patches of ``x`` and of ``y``, N pictures each, (P, D); NaN where they are too few."""
    of_x, of_y = Moments.of_each(x), Moments.of_each(y)
    if len(x) < 3:
        enough = min(of_x.count.sum(), of_y.count.sum()) > 1
        nan = torch.tensor(float("nan"), dtype=torch.float64)
        return SetScore(frechet_of_gaussians(*of_x.total().gaussian(), *of_y.total().gaussian()) if enough else nan)
    whole = frechet_of_gaussians(*of_x.total().gaussian(), *of_y.total().gaussian())
    return jackknife(whole, frechet_of_gaussians(*of_x.without_each().gaussian(), *of_y.without_each().gaussian()))


class FD(PatchMetric):
    """:func:`frechet_of_pictures` between restored pictures and originals; lower is better, chance makes it negative."""

    def distance(self, x: Sequence[Tensor], y: Sequence[Tensor]) -> SetScore:
        """Return the score of the features of restored pictures ``x`` and originals ``y``."""
        return frechet_of_pictures(x, y)
