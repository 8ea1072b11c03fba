"""The LPIPS term of the paper's data loss."""

from __future__ import annotations

from osediff_exp.losses.base import LossInputs, LossTerm, TermOutput
from osediff_exp.models.perceptual import lpips_distance


class LPIPSLoss(LossTerm):
    """Mean LPIPS between output and target, the second summand of L_data (OSEDiff paper, sec. 3.3; VGG16 trunk in the released code)."""

    def __init__(self, *, weight: float, net: str = "vgg", gradient_checkpointing: bool = False) -> None:
        """Take the ``net`` (``alex`` or ``vgg``) and whether its activations are computed again in the backward pass, to save memory."""
        super().__init__(weight=weight)
        self.distance = lpips_distance(net)
        self.distance.recompute = gradient_checkpointing

    def forward(self, inputs: LossInputs) -> TermOutput:
        """Return the mean over the batch of LPIPS(output, target); gradient reaches ``inputs.output`` only."""
        return TermOutput(loss=self.distance(inputs.output, inputs.target.detach()).mean())
