"""The ST-LPIPS term: a perceptual distance whose weights come with the installation."""

from __future__ import annotations

from osediff_exp.losses.base import LossInputs, LossTerm, TermOutput
from osediff_exp.models.perceptual import st_lpips_distance


class STLPIPSLoss(LossTerm):
    """Mean ST-LPIPS between output and target (Ghildyal and Liu, ECCV 2022), the offline stand-in for the paper's LPIPS term.

    It is another distance than LPIPS, with its own scale: figures of the two do not compare.
    """

    def __init__(self, *, weight: float, net: str = "alex", gradient_checkpointing: bool = False) -> None:
        """Take the ``net`` (``alex`` or ``vgg``) and whether its activations are computed again in the backward pass, to save memory."""
        super().__init__(weight=weight)
        self.distance = st_lpips_distance(net)
        self.distance.recompute = gradient_checkpointing

    def forward(self, inputs: LossInputs) -> TermOutput:
        """Return the mean over the batch of ST-LPIPS(output, target); gradient reaches ``inputs.output`` only."""
        return TermOutput(loss=self.distance(inputs.output, inputs.target.detach()).mean())
