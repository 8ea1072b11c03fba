"""Variational score distillation in latent space, with its score network."""

from __future__ import annotations

from osediff_exp.losses.base import LossInputs, TermOutput
from osediff_exp.losses.score_network import ScoreDistillationLoss


class VSDLoss(ScoreDistillationLoss):
    """The paper's regularizer (equations 8 to 10): pull z_hat's distribution to the prior's, seen through prior and score network.

    Arguments: :class:`~osediff_exp.losses.score_network.ScoreSettings`.
    """

    purpose, score_purpose = "vsd", "score"

    def forward(self, inputs: LossInputs) -> TermOutput:
        return self.match(inputs.latent, inputs)

    def critic_loss(self, inputs: LossInputs) -> TermOutput:
        """Return the score network's denoising loss on detached z_hat."""
        return self.denoising(inputs.latent, inputs)
