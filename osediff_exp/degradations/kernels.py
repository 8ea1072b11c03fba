"""Blur kernels of Real-ESRGAN (arXiv 2107.10833, section 3.2 and appendix; the Gaussian family is section 3.1).

All kernels are float64, (size, size), odd size, centrally symmetric and sum to 1. Lengths are in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
from scipy.special import j1

from osediff_exp.degradations.checks import Range, checked_around_one, checked_choice, checked_probability, checked_range, checked_sizes
from osediff_exp.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from osediff_exp.degradations.base import Image

Kernel = npt.NDArray[np.float64]
FAMILIES = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")


def _offsets(size: int) -> tuple[Kernel, Kernel]:
    x = np.arange(size, dtype=np.float64) - size // 2
    return x[None, :], x[:, None]


def mahalanobis(size: int, sigma_x: float, sigma_y: float, theta: float) -> Kernel:
    """Return u^T Sigma^-1 u at each pixel offset u, with Sigma = R(theta) diag(sigma_x^2, sigma_y^2) R(theta)^T; theta in radians."""
    x, y = _offsets(size)
    along = np.cos(theta) * x + np.sin(theta) * y
    across = -np.sin(theta) * x + np.cos(theta) * y
    return (along / sigma_x) ** 2 + (across / sigma_y) ** 2


def generalized_gaussian(distance: Kernel, beta: float) -> Kernel:
    """Return exp(-d^beta / 2), normalised; beta = 1 is the Gaussian, larger is flatter-topped."""
    kernel = np.exp(-0.5 * distance**beta)
    return kernel / kernel.sum()


def plateau(distance: Kernel, beta: float) -> Kernel:
    """Return 1 / (1 + d^beta), normalised: a flat top with heavy tails."""
    kernel = 1.0 / (1.0 + distance**beta)
    return kernel / kernel.sum()


def sinc(size: int, omega: float) -> Kernel:
    """Return the circular low-pass kernel omega / (2 pi r) * J1(omega r), normalised; omega in radians per pixel, (0, pi]."""
    x, y = _offsets(size)
    r = np.hypot(x, y)
    r[size // 2, size // 2] = 1.0
    kernel = omega * j1(omega * r) / (2.0 * np.pi * r)
    kernel[size // 2, size // 2] = omega**2 / (4.0 * np.pi)
    return kernel / kernel.sum()


def _separable_terms(kernel: Kernel) -> list[tuple[Kernel, Kernel]] | None:
    """Return (row, column) vectors whose products sum to the kernel, or None where direct filtering is cheaper.

    Beyond 11x11 OpenCV filters by Fourier transforms, at the price of about five separable passes. Terms below 1e-6 of the first
    change a picture by less than float32's own rounding in the transform.
    """
    if kernel.shape[0] <= 11:
        return None
    u, s, vt = np.linalg.svd(kernel)
    rank = int(np.count_nonzero(s > 1e-6 * s[0]))
    return [(s[k] * vt[k], u[:, k]) for k in range(rank)] if rank <= 3 else None


def blur(image: Image, kernel: Kernel) -> Image:
    """Correlate (H, W, 3) with the kernel, borders reflected without repeating the edge pixel."""
    if terms := _separable_terms(kernel):
        passes = [cv2.sepFilter2D(image, -1, row, column, borderType=cv2.BORDER_REFLECT_101) for row, column in terms]
        return np.asarray(sum(passes[1:], start=passes[0]), dtype=np.float32)
    return np.asarray(cv2.filter2D(image, -1, kernel.astype(np.float32), borderType=cv2.BORDER_REFLECT_101), dtype=np.float32)


def _draw_beta(beta_range: Range, rng: np.random.Generator) -> float:
    # Half of the draws sharpen and half flatten, however far the two ends lie from 1.
    low, high = beta_range
    return rng.uniform(low, 1.0) if rng.random() < 0.5 else rng.uniform(1.0, high)


@dataclass(frozen=True, kw_only=True)
class SincKernels:
    """A random low-pass (ringing) kernel.

    ``sizes``: odd sizes, drawn uniformly. ``cutoff``: the lowest cut-off in units of pi radians per pixel, the highest is pi.
    ``wide_cutoff`` takes its place from size ``wide_from`` on.
    """

    sizes: tuple[int, ...]
    cutoff: float
    wide_cutoff: float
    wide_from: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", checked_sizes("sinc.sizes", self.sizes))
        for name in ("cutoff", "wide_cutoff"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise UserError(f"degradation: sinc.{name}={getattr(self, name):g} is in units of pi; write a number above 0, at most 1")

    def draw(self, rng: np.random.Generator) -> Kernel:
        """Draw size, then cut-off."""
        size = self.sizes[int(rng.integers(len(self.sizes)))]
        lowest = self.cutoff if size < self.wide_from else self.wide_cutoff
        return sinc(size, rng.uniform(lowest * np.pi, np.pi))


@dataclass(frozen=True, kw_only=True)
class BlurKernels:
    """A random blur kernel.

    ``sizes``: odd sizes, drawn uniformly. ``families``: probability of each of FAMILIES. ``sigma``: range of the standard deviations.
    ``beta_generalized``, ``beta_plateau``: ranges of the shape around 1, each side of 1 with probability 1/2.
    ``sinc_probability``: how often ``sinc`` gives the kernel instead.
    """

    sizes: tuple[int, ...]
    families: Mapping[str, float]
    sigma: Range
    beta_generalized: Range = (1.0, 1.0)
    beta_plateau: Range = (1.0, 1.0)
    sinc_probability: float = 0.0
    sinc: SincKernels | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", checked_sizes("blur.sizes", self.sizes))
        object.__setattr__(self, "families", checked_choice("blur.families", self.families, FAMILIES))
        object.__setattr__(self, "sigma", checked_range("blur.sigma", self.sigma, low=1e-3))
        for name in ("beta_generalized", "beta_plateau"):
            object.__setattr__(self, name, checked_around_one(f"blur.{name}", getattr(self, name)))
        if checked_probability("blur.sinc_probability", self.sinc_probability) and self.sinc is None:
            raise UserError("degradation: blur.sinc_probability needs the kernels themselves; add blur.sinc, or write 0")

    def draw(self, rng: np.random.Generator) -> Kernel:
        """Draw a kernel: sinc or not; then size, family, widths, angle and shape."""
        if self.sinc is not None and rng.random() < self.sinc_probability:
            return self.sinc.draw(rng)
        size = self.sizes[int(rng.integers(len(self.sizes)))]
        family = FAMILIES[rng.choice(len(FAMILIES), p=list(self.families.values()))]
        return self._draw_family(family, size, rng)

    def _draw_family(self, family: str, size: int, rng: np.random.Generator) -> Kernel:
        sigma_x = sigma_y = rng.uniform(*self.sigma)
        theta = 0.0
        if family.endswith("aniso"):
            sigma_y, theta = rng.uniform(*self.sigma), rng.uniform(-np.pi, np.pi)
        distance = mahalanobis(size, sigma_x, sigma_y, theta)
        if family.startswith("generalized"):
            return generalized_gaussian(distance, _draw_beta(self.beta_generalized, rng))
        if family.startswith("plateau"):
            return plateau(distance, _draw_beta(self.beta_plateau, rng))
        return generalized_gaussian(distance, 1.0)
