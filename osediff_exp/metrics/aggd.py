"""The asymmetric generalised Gaussian distribution (AGGD), fitted by matching moments.

Density: proportional to exp(-(|x| / beta)^alpha) with beta = beta_l for x < 0 and beta_r for x >= 0. Fit: N.-E. Lasmar, Y. Stitou and
Y. Berthoumieu, "Multiscale skewed heavy tailed model for texture analysis", ICIP 2009, on the grid of shapes of NIQE's authors.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gamma

Array = NDArray[np.float64]


@cache
def _shape_table() -> tuple[Array, Array]:
    """Return the shapes alpha = 0.2, 0.201, ..., 10 and the moment ratios Gamma(2/a)^2 / (Gamma(1/a) Gamma(3/a)), which rise with alpha."""
    alpha = np.arange(0.2, 10.001, 0.001)
    return alpha, gamma(2 / alpha) ** 2 / (gamma(1 / alpha) * gamma(3 / alpha))


def _nearest_shape(ratio: Array) -> Array:
    """Return the shape on the grid whose moment ratio is nearest; the first shape for NaN, as the authors' minimum search does."""
    alpha, ratios = _shape_table()
    above = np.clip(np.searchsorted(ratios, ratio), 1, len(ratios) - 1)
    nearest = above - (ratio - ratios[above - 1] <= ratios[above] - ratio)
    return alpha[np.where(np.isnan(ratio), 0, nearest)]


def fit_aggd(blocks: Array) -> tuple[Array, Array, Array]:
    """Return shape alpha and scales beta_l, beta_r, each (N,), of the samples in ``blocks`` (N, ...).

    A block without negative or without positive values has no fit: its scale on that side is NaN and its shape 0.2.
    """
    x = blocks.reshape(len(blocks), -1)
    square = x * x
    negative, positive = x < 0, x > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        sigma_l = np.sqrt(np.einsum("nk,nk->n", square, negative) / negative.sum(axis=1))
        sigma_r = np.sqrt(np.einsum("nk,nk->n", square, positive) / positive.sum(axis=1))
        g = sigma_l / sigma_r
        r = np.abs(x).mean(axis=1) ** 2 / square.mean(axis=1)
        alpha = _nearest_shape(r * (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2)
    scale = np.sqrt(gamma(1 / alpha) / gamma(3 / alpha))
    return alpha, sigma_l * scale, sigma_r * scale


def mean_of_aggd(alpha: Array, beta_l: Array, beta_r: Array) -> Array:
    """Return the distribution's mean parameter eta = (beta_r - beta_l) Gamma(2/alpha) / Gamma(1/alpha) (NIQE paper, eq. 8)."""
    return (beta_r - beta_l) * gamma(2 / alpha) / gamma(1 / alpha)
