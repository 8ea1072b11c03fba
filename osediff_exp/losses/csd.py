"""Classifier score distillation."""

from __future__ import annotations

from torch import Tensor

from osediff_exp.losses.distillation import Noised, PriorEstimates, normalizer
from osediff_exp.losses.prior_distillation import PriorDistillationLoss


class CSDLoss(PriorDistillationLoss):
    """w (x0_negative - x0_guided), both the frozen prior's (Yu et al., "Text-to-3D with classifier score distillation", ICLR 2024; the
    semantic term of PiSA-SR, arXiv 2412.03017).

    CSD's gradient is the classifier score, e(z_t; c) - e(z_t; null). As in PiSA-SR the negative prompt stands for null, the guided estimate
    for the conditional one (the same direction, ``guidance`` times as long), and w = 1 / mean|z_hat - x0_guided| per sample. No score
    network: z_hat is pulled to where prompt and guidance lead, whatever its own distribution.

    Arguments: :class:`~osediff_exp.losses.prior_distillation.PriorSettings`.
    """

    purpose = "csd"

    def gradient(self, at: Noised, x0: PriorEstimates) -> tuple[Tensor, Tensor]:
        w = normalizer(at.z, x0.guided, epsilon=self.epsilon)
        return w.reshape(-1, 1, 1, 1) * (x0.negative - x0.guided), w
