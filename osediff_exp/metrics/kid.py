"""KID: how far restored patches lie from true ones, without bias, so that few pictures do.

M. Binkowski, D. J. Sutherland, M. Arbel, A. Gretton, "Demystifying MMD GANs", ICLR 2018: the squared maximum mean discrepancy of network
features under k(x, y) = (x . y / D + 1)^3. Ours are features of patches (models/patch_features.py), not of an Inception network, and
the unit is the picture: figures compare among themselves only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from osediff_exp.metrics.patch_metric import PatchMetric
from osediff_exp.metrics.set_metric import SetScore, jackknife

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def kernel_means(x: Sequence[Tensor], y: Sequence[Tensor]) -> Tensor:
    """Return (N, M), the means of k over the patches of picture i of ``x`` and of picture j of ``y``, each (P, D)."""
    ends_x, all_y = [len(patches) for patches in x], torch.cat(list(y))
    ends_y = [len(patches) for patches in y]
    rows = []
    for patches in torch.cat(list(x)).split(ends_x):  # picture by picture: a matrix of all pairs of patches would not fit
        k = (patches @ all_y.T / patches.shape[1] + 1.0) ** 3
        rows.append(torch.stack([part.mean() for part in k.mean(dim=0).split(ends_y)]))
    return torch.stack(rows)


def squared_mmd(x: Sequence[Tensor], y: Sequence[Tensor]) -> SetScore:
    """Return the unbiased estimate of MMD^2 between restored pictures ``x`` and their originals ``y``, N of each, (P, D).

    The U-statistic over pairs of pictures i != j of h(i, j) = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i) (A. Gretton et al., "A
    Kernel Two-Sample Test", JMLR 13, 2012, eq. 4), with k averaged over patches. Leaving out i = j everywhere is what keeps it
    unbiased where patches of a picture resemble each other and a restored picture its original, and pairing takes the
    pictures' content out of its error. NaN under two pictures; contributions from three on.
    """
    n = len(x)
    if n < 2:
        return SetScore(torch.tensor(float("nan"), dtype=torch.float64))
    cross = kernel_means(x, y)
    h = kernel_means(x, x) + kernel_means(y, y) - cross - cross.T
    h.fill_diagonal_(0.0)
    total, of_each = h.sum(), h.sum(dim=1)
    value = total / (n * (n - 1))
    return jackknife(value, (total - 2 * of_each) / ((n - 1) * (n - 2))) if n > 2 else SetScore(value)


class KID(PatchMetric):
    """:func:`squared_mmd` between the patches of the restored pictures and of the originals; lower is better, chance makes it negative."""

    def distance(self, x: Sequence[Tensor], y: Sequence[Tensor]) -> SetScore:
        """Return the score of the features of restored pictures ``x`` and originals ``y``."""
        return squared_mmd(x, y)
