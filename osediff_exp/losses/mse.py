"""The data term."""

from __future__ import annotations

from torch.nn import functional as F

from osediff_exp.losses.base import LossInputs, LossTerm, TermOutput


class MSELoss(LossTerm):
    """mean (x_hat - x_H)^2 on [-1, 1] images (paper, equation 6)."""

    def forward(self, inputs: LossInputs) -> TermOutput:
        return TermOutput(F.mse_loss(inputs.output, inputs.target))
