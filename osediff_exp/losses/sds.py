"""Score distillation sampling."""

from __future__ import annotations

from typing import Literal, Unpack

from torch import Tensor

from osediff_exp.errors import UserError, nearest
from osediff_exp.losses.distillation import Noised, PriorEstimates, normalizer
from osediff_exp.losses.prior_distillation import PriorDistillationLoss, PriorSettings

Weighting = Literal["normalized", "sigma2"]
WEIGHTINGS = ("normalized", "sigma2")


class SDSLoss(PriorDistillationLoss):
    """w(t) (e(z_t; c) - eps) with the guided prior's e (Poole et al., "DreamFusion", ICLR 2023, equation 3).

    In x0 form, e - eps = (alpha_t / sigma_t) (z_hat - x0_prior).

    Args:
        weighting: ``sigma2``: w(t) = sigma_t^2, DreamFusion's; ``normalized``: OSEDiff's (z_hat - x0_prior) / mean|z_hat - x0_prior| per
            sample, to compare with VSD at equal strength (VSD with a score network that returns z_hat itself).
        settings: :class:`~osediff_exp.losses.prior_distillation.PriorSettings`.
    """

    purpose = "sds"

    def __init__(self, *, weighting: Weighting, **settings: Unpack[PriorSettings]) -> None:
        super().__init__(**settings)
        if weighting not in WEIGHTINGS:
            raise UserError(
                f"loss.terms.sds.weighting={weighting} is unknown: use {' or '.join(WEIGHTINGS)}.{nearest(weighting, WEIGHTINGS)}"
            )
        self.weighting: Weighting = weighting

    def gradient(self, at: Noised, x0: PriorEstimates) -> tuple[Tensor, Tensor]:
        if self.weighting == "normalized":
            w = normalizer(at.z, x0.guided, epsilon=self.epsilon)
        else:  # sigma^2 (e - eps) = sigma alpha (z_hat - x0)
            w = ((1.0 - at.abar) * at.abar).sqrt().to(at.z)
        return w.reshape(-1, 1, 1, 1) * (at.z - x0.guided), w
