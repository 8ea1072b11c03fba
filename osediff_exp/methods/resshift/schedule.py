"""The shifting schedule: eta_t, the chain's marginal and posterior, and SinSR's deterministic map, as pure functions.

Notation of ResShift: z_0 is the high-quality latent, y the low-quality one, e = y - z_0 the residual, n standard normal, t = 1..T and
eta_0 = 0. Tensors of latents are (B, C, h, w); ``t`` is an integer or integers (B,).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from osediff_exp.diffusion import TimestepTable, rounded_like
from osediff_exp.errors import UserError

ROOT_END = 0.99
"""sqrt(eta_T) (released code, whose ``etas_end`` is the end of the square root)."""


def root_etas(*, T: int, m: float, p: float, kappa: float) -> Tensor:
    """Return sqrt(eta_t) for t = 1..T, (T,) float64: s b^{beta_t}, s = min(m / kappa, m) (as released).

    Args:
        T: length of the chain, at least 2.
        m: kappa sqrt(eta_1) is at most this.
        p: exponent; smaller values shift faster in the beginning.
        kappa: strength of the noise.
    """
    s = min(m / kappa, m)
    b = math.exp(math.log(ROOT_END / s) / (T - 1))
    beta = (torch.arange(T, dtype=torch.float64, device="cpu") / (T - 1)) ** p * (T - 1)
    return s * b**beta


@dataclass(frozen=True, kw_only=True)
class ShiftSchedule:
    """eta_t and kappa, and what follows from them. Its figures lie on the CPU, also where a network is built without values (meta device).

    Attributes:
        T, m, p, kappa: see :func:`root_etas`.

    Raises:
        UserError: a value is out of range.
    """

    T: int
    m: float
    p: float
    kappa: float

    def __post_init__(self) -> None:
        if self.T < 2 or not 0 < self.m < ROOT_END or self.p <= 0 or self.kappa <= 0:
            given = f"generator.T={self.T}, m={self.m}, p={self.p}, kappa={self.kappa}"
            raise UserError(f"{given} make no schedule: T must be at least 2, m between 0 and {ROOT_END}, p and kappa above 0")

    @cached_property
    def _eta(self) -> TimestepTable:
        """eta_0 = 0, eta_1, ..., eta_T."""
        etas = root_etas(T=self.T, m=self.m, p=self.p, kappa=self.kappa).square()
        return TimestepTable(torch.cat([torch.zeros(1, dtype=torch.float64, device="cpu"), etas]))

    def eta(self, t: int | Tensor) -> Tensor:
        """Return eta_t in float64: a scalar, or (B,) for timesteps (B,), see :class:`~osediff_exp.diffusion.TimestepTable`."""
        return self._eta[t]

    def diffuse(self, z_0: Tensor, y: Tensor, n: Tensor, t: int | Tensor) -> Tensor:
        """Return z_t = z_0 + eta_t e + kappa sqrt(eta_t) n, the marginal."""
        eta = self.eta(t)
        shift, spread = rounded_like(z_0, eta, self.kappa * eta.sqrt())
        return z_0 + shift * (y - z_0) + spread * n

    def start(self, y: Tensor, n: Tensor) -> Tensor:
        """Return z_T = y + kappa sqrt(eta_T) n: there z_0 is unknown, and 1 - eta_T of the residual is left out (released code)."""
        (spread,) = rounded_like(y, self.kappa * self.eta(self.T).sqrt())
        return y + spread * n

    def scaled(self, z_t: Tensor, t: int | Tensor) -> Tensor:
        """Return the network's input z_t / sqrt(kappa^2 eta_t + 1): about the variance of a latent (released code)."""
        (scale,) = rounded_like(z_t, (self.kappa**2 * self.eta(t) + 1).sqrt())
        return z_t / scale

    def noise_in_scaled(self, t: int) -> float:
        """Return the standard deviation of the noise in :meth:`scaled` z_t: kappa sqrt(eta_t) / sqrt(kappa^2 eta_t + 1)."""
        variance = float(self.kappa**2 * self.eta(t))
        return math.sqrt(variance / (variance + 1))

    def posterior(self, z_t: Tensor, z_0: Tensor, s: int, t: int) -> Tensor:
        """Return the mean of q(z_s | z_t, z_0, y), s < t (published: s = t - 1)."""
        ratio = float(self.eta(s) / self.eta(t))
        return ratio * z_t + (1 - ratio) * z_0

    def posterior_variance(self, s: int, t: int) -> float:
        """Return kappa^2 (eta_s / eta_t) (eta_t - eta_s)."""
        return float(self.kappa**2 * self.eta(s) / self.eta(t) * (self.eta(t) - self.eta(s)))

    def deterministic(self, z_t: Tensor, z_0: Tensor, y: Tensor, s: int, t: int) -> Tensor:
        """Return z_s = k z_0 + m z_t + j y: the point of the marginal at s with the noise that z_t has (SinSR)."""
        eta_s, eta_t = float(self.eta(s)), float(self.eta(t))
        both, m = math.sqrt(eta_s * eta_t), math.sqrt(eta_s / eta_t)
        return (1 - eta_s + both - m) * z_0 + m * z_t + (eta_s - both) * y

    def timesteps(self, steps: int) -> list[int]:
        """Return the t at which a chain of ``steps`` steps evaluates the network, from T down: all, or as evenly spaced ones.

        Fewer than T are ours: q(z_s | z_t, z_0, y) holds for any s < t. The last of them is followed by s = 0.
        """
        return [round(self.T * k / steps) for k in range(steps, 0, -1)]
